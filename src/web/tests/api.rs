//! The JSON beside the page, and the document that describes it.

use serde_json::{Value, json};

use super::*;
use crate::rotation::{Credential, Entry, Happened};

impl Running {
    async fn json(&self, path: &str) -> (u16, Value) {
        let (status, text) = self.get(0, path).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}")))
    }
}

#[tokio::test]
async fn a_listing_is_searched_filtered_and_paged() {
    let server = running(options()).await;
    let main = server.board.organization("main");
    for number in 0..7 {
        let paused_until = if number < 3 { moment(500).wall.into() } else { crate::snapshot::At::UNKNOWN };
        server.board.put(&format!("c{number}").parse().unwrap(), Summary { paused_until, ..Summary::new(main) });
    }
    let (_, page) = server.json("/api/v1/credentials?show=attention&per_page=2&page=2").await;
    assert_eq!((&page["matching"], &page["page"], &page["pages"]), (&json!(3), &json!(2), &json!(2)));
    assert_eq!(page["credentials"].as_array().unwrap().len(), 1);
    assert_eq!((&page["credentials"][0]["name"], &page["credentials"][0]["attention"]), (&json!("c2"), &json!(["paused"])));
    let (status, wrong) = server.json("/api/v1/credentials?sort=size").await;
    assert_eq!((status, &wrong["error"]), (400, &json!("`sort` is none of need, name, expiry, next")));
}

#[tokio::test]
async fn a_credential_and_its_history_are_told_and_what_is_not_there_is_said() {
    let server = running(options()).await;
    let entry = |second| Entry {
        at: moment(second).wall,
        what: Happened::ListFailed,
        rotation: None,
        token: None,
        delivery: None,
        reason: None,
        detail: None,
        by: None,
    };
    server.record(&"etl".parse().unwrap(), &Credential::default(), (0..5).map(entry).collect()).await;
    let (status, detail) = server.json("/api/v1/credentials/etl").await;
    assert_eq!((status, &detail["account"], &detail["state"]), (200, &json!("etl_<b>"), &json!("new")));
    assert_eq!((detail["history"].as_array().unwrap().len(), &detail["places"][0]["place"]), (5, &json!(PLACE)));
    let (_, first) = server.json("/api/v1/credentials/etl/history?limit=3").await;
    let (_, second) = server.json(&format!("/api/v1/credentials/etl/history?limit=3&before={}", first["before"])).await;
    let times = |history: &Value| history["steps"].as_array().unwrap().iter().map(|step| step["at"].clone()).collect::<Vec<_>>();
    let expected: Vec<Value> = (0..5).rev().map(|second| json!(moment(second).wall)).collect();
    assert_eq!([times(&first), times(&second)].concat(), expected);
    assert_eq!(second["before"], Value::Null);
    for path in ["/api/v1/credentials/xenia", "/api/v1/credentials/No", "/api/v1/credentials/xenia/history"] {
        assert_eq!(server.json(path).await, (404, json!({ "error": "no credential has this name" })), "{path}");
    }
    assert_eq!(server.json("/api/v1/credentials/etl/history?limit=0").await.0, 400);
}

#[tokio::test]
async fn each_path_of_the_document_is_served() {
    let server = running(options()).await;
    let (_, document) = server.json("/api/v1/openapi.json").await;
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 5);
    for path in paths.keys() {
        assert_eq!(server.json(&path.replace("{name}", "etl")).await.0, 200, "{path}");
        assert!(paths[path].as_object().unwrap().keys().eq(["get"]), "{path}");
    }
    assert!(document["components"]["schemas"]["Detail"]["properties"].as_object().unwrap().contains_key("concerns"));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}
