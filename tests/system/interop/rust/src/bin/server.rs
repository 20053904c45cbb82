//! async-graphql over WebSockets, by either of its subprotocols: server <which> <port, 0 for any>.
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_graphql::futures_util::Stream;
use async_graphql::{Data, EmptyMutation, Error, Object, Schema, SimpleObject, Subscription};
use async_graphql_axum::{GraphQLProtocol, GraphQLRequest, GraphQLResponse, GraphQLWebSocket};
use axum::extract::{Request, State, WebSocketUpgrade};
use axum::http::HeaderValue;
use axum::middleware::map_request;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{json, Value};

#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Counts>>);

/// What the server was asked for, and how many streams of ticks it has.
#[derive(Default)]
struct Counts {
    posts: usize,
    readers: usize,
    inits: Vec<Value>,
}

/// A stream that is counted until it is dropped.
struct Reader(Asked);

impl Reader {
    fn new(asked: Asked) -> Self {
        asked.0.lock().unwrap().readers += 1;
        Reader(asked)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0 .0.lock().unwrap().readers -= 1;
    }
}

#[derive(SimpleObject)]
struct Tick {
    number: i32,
    label: String,
}

fn tick(number: i32) -> Tick {
    Tick {
        number,
        label: format!("tick {number}"),
    }
}

struct Query;

#[Object]
impl Query {
    async fn hello(&self) -> Option<&str> {
        Some("hello")
    }
}

struct Subscriptions(Asked);

#[Subscription]
impl Subscriptions {
    async fn ticks(&self, upto: i32, every_ms: Option<i32>) -> impl Stream<Item = Tick> {
        let reader = Reader::new(self.0.clone());
        async_stream::stream! {
            let _reader = reader;
            for number in 0..upto {
                yield tick(number);
                pause(every_ms.unwrap_or(0)).await;
            }
        }
    }

    /// Its second event is an error, and the others are not.
    async fn faulty(&self) -> impl Stream<Item = Result<Option<Tick>, Error>> {
        async_stream::stream! {
            for number in 0..3 {
                yield if number == 1 {
                    Err(Error::new("this one cannot be told"))
                } else {
                    Ok(Some(tick(number)))
                };
                pause(20).await;
            }
        }
    }
}

async fn pause(milliseconds: i32) {
    tokio::time::sleep(Duration::from_millis(milliseconds as u64)).await;
}

type Ticks = Schema<Query, EmptyMutation, Subscriptions>;

async fn execute(
    State((schema, asked)): State<(Ticks, Asked)>,
    request: GraphQLRequest,
) -> GraphQLResponse {
    asked.0.lock().unwrap().posts += 1;
    schema.execute(request.into_inner()).await.into()
}

async fn socket(
    State((schema, asked)): State<(Ticks, Asked)>,
    protocol: GraphQLProtocol,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade
        .protocols(async_graphql::http::ALL_WEBSOCKET_PROTOCOLS)
        .on_upgrade(move |stream| {
            GraphQLWebSocket::new(stream, schema, protocol)
                .on_connection_init(move |init| async move {
                    let refused = init["refuse"] == true;
                    asked.0.lock().unwrap().inits.push(init);
                    if refused {
                        return Err(Error::new("not you"));
                    }
                    Ok(Data::default())
                })
                .serve()
        })
}

/// It chooses the first of the subprotocols that a client offers.
async fn offer_the_legacy_protocol(mut request: Request) -> Request {
    request.headers_mut().insert(
        "sec-websocket-protocol",
        HeaderValue::from_static("graphql-ws"),
    );
    request
}

async fn told(State((_, asked)): State<(Ticks, Asked)>) -> Json<Value> {
    let counts = asked.0.lock().unwrap();
    Json(
        json!({ "methods": { "POST": counts.posts }, "readers": counts.readers, "inits": counts.inits }),
    )
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let asked = Asked::default();
    let schema = Schema::build(Query, EmptyMutation, Subscriptions(asked.clone())).finish();
    let app = Router::new()
        .route("/graphql", get(socket).post(execute))
        .route("/asked", get(told))
        .with_state((schema, asked));
    let app = if std::env::args()
        .nth(1)
        .unwrap()
        .ends_with("legacy protocol")
    {
        app.layer(map_request(offer_the_legacy_protocol))
    } else {
        app
    };
    let port = std::env::args().nth(2).unwrap();
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}"))
        .await
        .unwrap();
    println!("ready: {}", listener.local_addr().unwrap().port());
    axum::serve(listener, app).await.unwrap();
}
