//! The read-only JSON, and the OpenAPI document that describes it. One table has each path with what it answers: the
//! router and the document are both made of it, and the schemas of the types that are sent.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Parameters, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::records::{self, RecordError};
use super::select::{Asked, Listing, Order, Show, within};
use super::status::{self, Status};
use super::{Shared, headers, streamed};
use crate::engine::{Detail, StepLine};
use crate::rotation::CredentialName;
use crate::snapshot::{Build, Label};

/// How many steps one answer has, unless it is asked for otherwise, and at most.
const STEPS: usize = 100;
const STEPS_MAX: usize = 1_000;
/// JSON numbers are exact up to this in every reader.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Why something is not answered.
#[derive(Serialize, JsonSchema)]
pub struct Refusal {
    error: String,
}

/// A portion of a history.
#[derive(Serialize, JsonSchema)]
struct History {
    /// Newest first.
    steps: Vec<NumberedStep>,
    /// What to ask for as `before` to get the steps that came before these; null after the first of all.
    before: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct NumberedStep {
    number: u64,
    #[serde(flatten)]
    step: StepLine,
}

/// One path.
struct Operation {
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    parameters: Vec<Value>,
    answer: fn(&mut SchemaGenerator) -> Schema,
    refusals: &'static [(u16, &'static str)],
    route: MethodRouter<Arc<Shared>>,
}

fn answer<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const NOT_CONFIGURED: (u16, &str) = (404, "No credential has this name.");
const UNREADABLE: (u16, &str) = (500, "The journal can't be read; the log says why.");
const WRONG: (u16, &str) = (400, "A parameter is wrong.");

fn operations() -> Vec<Operation> {
    vec![
        Operation {
            path: "/api/v1/status",
            id: "status",
            summary: "The totals, and a line for each credential",
            parameters: Vec::new(),
            answer: answer::<Status>,
            refusals: &[],
            route: get(whole),
        },
        Operation {
            path: "/api/v1/credentials",
            id: "credentials",
            summary: "A page of the credentials that fit",
            parameters: listing_parameters(),
            answer: answer::<Listing>,
            refusals: &[WRONG],
            route: get(credentials),
        },
        Operation {
            path: "/api/v1/credentials/{name}",
            id: "credential",
            summary: "One credential: its tokens, places, concerns and last steps",
            parameters: vec![name_parameter()],
            answer: answer::<Detail>,
            refusals: &[NOT_CONFIGURED, UNREADABLE],
            route: get(credential),
        },
        Operation {
            path: "/api/v1/credentials/{name}/history",
            id: "history",
            summary: "The steps of one credential, newest first, a portion at a time",
            parameters: vec![
                name_parameter(),
                parameter(
                    "before",
                    "Only steps with a smaller number",
                    json!({ "type": "integer", "minimum": 1, "maximum": NUMBER_MAX }),
                ),
                parameter(
                    "limit",
                    "How many",
                    json!({ "type": "integer", "minimum": 1, "maximum": STEPS_MAX, "default": STEPS }),
                ),
            ],
            answer: answer::<History>,
            refusals: &[WRONG, NOT_CONFIGURED, UNREADABLE],
            route: get(history),
        },
        Operation {
            path: "/api/v1/openapi.json",
            id: "openapi",
            summary: "This document",
            parameters: Vec::new(),
            answer: |_| schemars::json_schema!({ "type": "object" }),
            refusals: &[],
            route: get(openapi),
        },
    ]
}

fn parameter(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema })
}

fn name_parameter() -> Value {
    let schema = json!({ "type": "string", "pattern": "^[a-z0-9_-]{1,63}$" });
    json!({ "name": "name", "in": "path", "required": true, "description": "The credential's name", "schema": schema })
}

fn listing_parameters() -> Vec<Value> {
    let orders: Vec<&str> = Order::ALL.iter().map(|order| order.as_str()).collect();
    let shows: Vec<&str> = Show::every().map(Show::as_str).collect();
    vec![
        parameter("q", "A part of the name, of the account or of a label (`key=value`)", json!({ "type": "string" })),
        parameter("show", "Only these", json!({ "type": "string", "enum": shows, "default": "all" })),
        parameter("sort", "In which order", json!({ "type": "string", "enum": orders, "default": "need" })),
        parameter("page", "Which page", json!({ "type": "integer", "minimum": 1, "maximum": u16::MAX, "default": 1 })),
        parameter("per_page", "How many a page has", json!({ "type": "integer", "minimum": 1, "maximum": 500, "default": 50 })),
    ]
}

pub fn router() -> Router<Arc<Shared>> {
    operations().into_iter().fold(Router::new(), |router, operation| router.route(operation.path, operation.route))
}

/// The document: OpenAPI 3.1, whose schemas are JSON Schema as it is.
fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let refusal = answer::<Refusal>(&mut generator);
    let content = |schema: &Schema| json!({ "application/json": { "schema": schema } });
    let mut paths = serde_json::Map::new();
    for operation in operations() {
        let found = (operation.answer)(&mut generator);
        let mut responses = serde_json::Map::new();
        responses.insert("200".to_owned(), json!({ "description": operation.summary, "content": content(&found) }));
        let asked_elsewhere = (403, "The request was made to a name that is not this machine's.");
        for (status, description) in operation.refusals.iter().chain([&asked_elsewhere]) {
            responses.insert(status.to_string(), json!({ "description": description, "content": content(&refusal) }));
        }
        let get = json!({
            "operationId": operation.id,
            "summary": operation.summary,
            "parameters": operation.parameters,
            "responses": responses,
        });
        paths.insert(operation.path.to_owned(), json!({ "get": get }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "rotad",
            "version": Build::THIS.version,
            "description": "What rotad knows, read-only: nothing here changes anything, and no token's value is in it.",
        },
        "paths": paths,
        "components": { "schemas": generator.take_definitions(true) },
    })
}

/// A refusal as JSON.
pub fn refusal(status: StatusCode, error: impl Into<String>) -> Response {
    (status, headers("application/json"), Json(Refusal { error: error.into() })).into_response()
}

impl IntoResponse for RecordError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotConfigured => StatusCode::NOT_FOUND,
            Self::Unreadable => StatusCode::INTERNAL_SERVER_ERROR,
        };
        refusal(status, self.to_string())
    }
}

fn answered(body: impl Serialize) -> Response {
    (headers("application/json"), Json(body)).into_response()
}

async fn whole(State(shared): State<Arc<Shared>>) -> Response {
    match status::document(Arc::clone(&shared.watched.board), shared.now()) {
        Ok(document) => streamed("application/json", document),
        Err(error) => {
            tracing::error!(%error, "the status can't be rendered");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "the status can't be rendered; the log says why")
        }
    }
}

/// What stands behind the `?` of an address, as it was understood.
pub type Given<T> = Result<Parameters<T>, QueryRejection>;

/// The parameters, or what is wrong with them.
pub fn given<T>(parameters: Given<T>) -> Result<T, String> {
    parameters.map(|Parameters(given)| given).map_err(|rejection| rejection.body_text())
}

async fn credentials(State(shared): State<Arc<Shared>>, asked: Given<Asked>) -> Response {
    match given(asked).and_then(|asked| asked.check()) {
        Ok(query) => answered(shared.select(&query, shared.now().wall)),
        Err(wrong) => refusal(StatusCode::BAD_REQUEST, wrong),
    }
}

async fn credential(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    let Ok(name) = name.parse::<CredentialName>() else { return RecordError::NotConfigured.into_response() };
    match records::detail(&shared, &name).await {
        Ok(detail) => answered(detail),
        Err(error) => error.into_response(),
    }
}

/// Which portion of a history is asked for.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Portion {
    pub before: String,
    limit: String,
}

impl Portion {
    /// The line's number; of the newest steps without it.
    pub fn before(&self) -> Result<u64, String> {
        within("before", &self.before, NUMBER_MAX, NUMBER_MAX)
    }

    fn limit(&self) -> Result<usize, String> {
        within("limit", &self.limit, STEPS, STEPS_MAX)
    }
}

async fn history(State(shared): State<Arc<Shared>>, Path(name): Path<String>, asked: Given<Portion>) -> Response {
    let Ok(name) = name.parse::<CredentialName>() else { return RecordError::NotConfigured.into_response() };
    let (before, limit) = match given(asked).and_then(|asked| Ok((asked.before()?, asked.limit()?))) {
        Ok(portion) => portion,
        Err(wrong) => return refusal(StatusCode::BAD_REQUEST, wrong),
    };
    match records::steps(&shared, &name, before, limit).await {
        Ok(found) => {
            let steps = found.lines.into_iter().map(|(number, step)| NumberedStep { number, step }).collect();
            answered(History { steps, before: found.before })
        }
        Err(error) => error.into_response(),
    }
}

async fn openapi(_: HeaderMap) -> Response {
    answered(document())
}
