//! The client of graphql-ws-client: client <URL>, told what to do as the clients on Node are.
//!
//! It does not connect again by itself: the program does, and begins what has not ended anew.
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::IntoFuture;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use graphql_ws_client::graphql::GraphqlOperation;
use graphql_ws_client::Client;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::{spawn_local, JoinHandle, LocalSet};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const PAUSE: Duration = Duration::from_millis(50);

/// A line of the input: an operation to begin, or the name of one to end.
#[derive(Deserialize)]
struct Order {
    name: String,
    query: Option<String>,
    variables: Option<Value>,
}

#[derive(Clone, Serialize)]
struct Operation {
    query: String,
    variables: Value,
}

impl GraphqlOperation for Operation {
    type Response = Value;
    type Error = Infallible;

    fn decode(&self, data: Value) -> Result<Value, Infallible> {
        Ok(data)
    }
}

/// One connection, and whether it has ended.
#[derive(Clone)]
struct Connected {
    client: Client,
    has_ended: Rc<Cell<bool>>,
}

/// The connection that all subscriptions share.
struct Connection {
    url: String,
    current: tokio::sync::Mutex<Option<Connected>>,
}

impl Connection {
    /// Return the connection that is open, or open one, for as long as it takes.
    async fn get(&self) -> Connected {
        let mut current = self.current.lock().await;
        if let Some(connected) = current.as_ref().filter(|each| !each.has_ended.get()) {
            return connected.clone();
        }
        loop {
            if let Some(connected) = self.open().await {
                *current = Some(connected.clone());
                return connected;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn open(&self) -> Option<Connected> {
        let mut request = self.url.as_str().into_client_request().unwrap();
        let subprotocol = "graphql-transport-ws".parse().unwrap();
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", subprotocol);
        let (socket, _) = tokio_tungstenite::connect_async(request).await.ok()?;
        let (client, actor) = Client::build(socket).await.ok()?;
        say(json!({ "name": "", "opened": true }));
        let has_ended = Rc::new(Cell::new(false));
        let ended = has_ended.clone();
        spawn_local(async move {
            actor.into_future().await;
            ended.set(true);
        });
        Some(Connected { client, has_ended })
    }
}

fn say(message: Value) {
    println!("{message}");
}

async fn subscribe(connection: Rc<Connection>, name: String, operation: Operation) {
    loop {
        let connected = connection.get().await;
        if let Ok(mut stream) = connected.client.subscribe(operation.clone()).await {
            while let Some(Ok(payload)) = stream.next().await {
                if payload.get("data").is_none() {
                    say(json!({ "name": name, "end": payload.to_string() }));
                    return;
                }
                say(json!({ "name": name, "next": payload }));
            }
            tokio::task::yield_now().await;
            if !connected.has_ended.get() {
                say(json!({ "name": name, "end": "complete" }));
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow(url: String) {
    let current = tokio::sync::Mutex::new(None);
    let connection = Rc::new(Connection {
        url: url.replacen("http", "ws", 1),
        current,
    });
    let running: RefCell<HashMap<String, JoinHandle<()>>> = RefCell::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let order: Order = serde_json::from_str(&line).unwrap();
        if let Some(query) = order.query {
            let operation = Operation {
                query,
                variables: order.variables.unwrap_or_default(),
            };
            let subscribed =
                spawn_local(subscribe(connection.clone(), order.name.clone(), operation));
            running.borrow_mut().insert(order.name, subscribed);
        } else {
            // A stream that is dropped is unsubscribed.
            if let Some(subscribed) = running.borrow_mut().remove(&order.name) {
                subscribed.abort();
            }
            say(json!({ "name": order.name, "end": "complete" }));
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    LocalSet::new()
        .run_until(follow(std::env::args().nth(1).unwrap()))
        .await;
}
