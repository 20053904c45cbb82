//! The client of graphql-ws-client: counts typed events from the first to `complete`.
use std::time::Instant;

use async_tungstenite::tungstenite::{client::IntoClientRequest, http::HeaderValue};
use chrono::{DateTime, Utc};
use futures_lite::StreamExt;
use graphql_ws_client::{Client, graphql::GraphqlOperation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const QUERY: &str = "subscription { resourceUpdates { id workflowId state data createdAt updatedAt } }";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // The fields are decoded, as an application would have them; the benchmark reads none.
struct Resource {
    id: String,
    workflow_id: String,
    state: String,
    data: Value,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    resource_updates: Resource,
}

#[derive(Deserialize)]
struct Response {
    data: Data,
}

#[derive(Serialize)]
struct ResourceUpdates {
    query: &'static str,
}

impl GraphqlOperation for ResourceUpdates {
    type Response = Response;
    type Error = serde_json::Error;

    fn decode(&self, data: Value) -> Result<Response, serde_json::Error> {
        serde_json::from_value(data)
    }
}

// One thread, because the process has one core.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("the URL is missing")?;
    let mut request = url.into_client_request()?;
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", HeaderValue::from_static("graphql-transport-ws"));
    let (connection, _) = async_tungstenite::tokio::connect_async(request).await?;
    let mut stream = Client::build(connection).subscribe(ResourceUpdates { query: QUERY }).await?;
    let mut events = 0_u64;
    let mut started = Instant::now();
    while let Some(response) = stream.next().await {
        let resource = std::hint::black_box(response?.data.resource_updates);
        if events == 0 {
            started = Instant::now();
        }
        drop(resource);
        events += 1;
    }
    println!("{}", serde_json::json!({ "events": events, "seconds": started.elapsed().as_secs_f64() }));
    Ok(())
}
