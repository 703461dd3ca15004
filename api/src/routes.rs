//! The table of routes. One declaration makes the route, its numbers in `/metrics`, and its entry in the OpenAPI
//! document, so that none of them can be forgotten.

use crate::app::App;
use crate::metrics::RouteStats;
use crate::params::{Param, Query};
use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post, put};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tower::{Layer, Service};
use tracing::Instrument;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

type Schemas = Vec<(String, RefOr<Schema>)>;

/// Adds the schema of `T`, and those that it refers to.
fn add_schemas<T: ToSchema>(schemas: &mut Schemas) {
    T::schemas(schemas);
    schemas.push((T::name().into_owned(), <T as PartialSchema>::schema()));
}

/// What the document says of one route.
pub(crate) struct Operation {
    id: &'static str,
    about: &'static str,
    params: Vec<Param>,
    headers: Vec<(&'static str, &'static str)>,
    bodies: Vec<(&'static str, Value)>,
    answers: Vec<(&'static str, Value)>,
    /// Made only for the document: they are large, and most nodes are never asked for it.
    schemas: Vec<fn(&mut Schemas)>,
}

/// Describes a route: its stable name, and what it does.
pub(crate) fn op(id: &'static str, about: &'static str) -> Operation {
    Operation {
        id,
        about,
        params: Vec::new(),
        headers: Vec::new(),
        bodies: Vec::new(),
        answers: Vec::new(),
        schemas: Vec::new(),
    }
}

const BYTES: &str = "application/octet-stream";

fn bytes_schema() -> Value {
    json!({"type": "string", "format": "binary"})
}

impl Operation {
    /// The same under another name, for another path.
    pub(crate) fn named(mut self, id: &'static str) -> Self {
        self.id = id;
        self
    }

    pub(crate) fn query<Q: Query>(mut self) -> Self {
        self.params = Q::documented();
        self
    }

    /// The route proposes a command.
    pub(crate) fn writes(mut self) -> Self {
        self.headers.push((
            "Idempotency-Key",
            "UUID version 7 of the demand; send it again with each retry and it is done once",
        ));
        self.headers.push((
            "Onward-Actor",
            "who demands it, for the journal; `http:<peer address>` if not said",
        ));
        self
    }

    /// The route changes the cluster in somebody's name, which no log entry has room for.
    pub(crate) fn logs_who(mut self) -> Self {
        self.headers.push((
            "Onward-Actor",
            "who demands it, for the log of the node that is asked (it does not stand in the journal); `http:<peer address>` if \
             not said",
        ));
        self
    }

    /// The route proposes a command that may be conditional.
    pub(crate) fn writes_if_match(mut self) -> Self {
        self.headers.push((
            "If-Match",
            "only if the object's `modified` is this revision; 0 for \"does not exist\"",
        ));
        self.writes()
    }

    pub(crate) fn body<T: ToSchema>(mut self) -> Self {
        let schema = self.reference::<T>();
        self.bodies.push(("application/json", schema));
        self
    }

    pub(crate) fn body_bytes(mut self) -> Self {
        self.bodies.push((BYTES, bytes_schema()));
        self
    }

    /// Answers `T` with the revision beside it.
    pub(crate) fn answer<T: ToSchema>(mut self) -> Self {
        let schema = self.reference::<T>();
        self.answers.push(("application/json", stamped(Some(schema))));
        self
    }

    /// Answers a page of `T`.
    pub(crate) fn list<T: ToSchema>(mut self) -> Self {
        let item = self.reference::<T>();
        let page = json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "items": {"type": "array", "items": item},
                "next": {"type": ["string", "null"], "description": "the `cursor` of the next page; null at the end"},
            },
        });
        self.answers.push(("application/json", stamped(Some(page))));
        self
    }

    /// Answers nothing but the revision.
    pub(crate) fn done(mut self) -> Self {
        self.answers.push(("application/json", stamped(None)));
        self
    }

    pub(crate) fn answer_bytes(mut self) -> Self {
        self.answers.push((BYTES, bytes_schema()));
        self
    }

    /// Answers a document outside of any revision.
    pub(crate) fn document(mut self, content_type: &'static str) -> Self {
        self.answers.push((content_type, json!({})));
        self
    }

    /// Streams messages of `T` as server-sent events.
    pub(crate) fn stream<T: ToSchema>(mut self) -> Self {
        let message = self.reference::<T>();
        self.headers.push((
            "Last-Event-ID",
            "go on after the message with this id; it goes before `after`",
        ));
        self.answers.push((
            "text/event-stream",
            json!({"type": "string", "x-message": message}),
        ));
        self
    }

    fn reference<T: ToSchema>(&mut self) -> Value {
        self.schemas.push(add_schemas::<T>);
        json!({"$ref": format!("#/components/schemas/{}", T::name())})
    }

    fn document_at(&self, tag: &str, path: &str) -> Value {
        let mut parameters: Vec<Value> = path_parameters(path)
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        parameters.extend(self.params.iter().map(|param| {
            json!({
                "name": param.name, "in": "query", "description": param.about, "required": param.required,
                "schema": {"type": param.kind},
            })
        }));
        parameters.extend(self.headers.iter().map(|(name, about)| {
            json!({"name": name, "in": "header", "description": about, "schema": {"type": "string"}})
        }));
        let mut operation = json!({
            "operationId": self.id, "summary": self.about, "tags": [tag], "parameters": parameters,
            "responses": {
                "200": {"description": "done", "content": content(&self.answers)},
                "default": {
                    "description": "a problem (RFC 9457)",
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                },
            },
        });
        if !self.bodies.is_empty() {
            operation["requestBody"] = json!({"required": true, "content": content(&self.bodies)});
        }
        operation
    }
}

fn content(schemas: &[(&'static str, Value)]) -> Value {
    let content = schemas
        .iter()
        .map(|(kind, schema)| ((*kind).to_owned(), json!({"schema": schema})));
    Value::Object(content.collect())
}

fn stamped(schema: Option<Value>) -> Value {
    let stamp = json!({
        "type": "object",
        "required": ["revision"],
        "properties": {
            "revision": {"type": "integer", "description": "of the write, or of the state that was read"},
            "age_ms": {"type": "integer", "description": "how old a local answer may be"},
        },
    });
    match schema {
        Some(schema) => json!({"allOf": [schema, stamp]}),
        None => stamp,
    }
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    let parts = path.split('/');
    parts.filter_map(|part| Some(part.strip_prefix('{')?.strip_suffix('}')?.trim_start_matches('*')))
}

/// Routes with what is known of them.
pub(crate) struct Routes {
    tag: &'static str,
    router: Router<App>,
    pub(crate) stats: Vec<Arc<RouteStats>>,
    operations: Vec<(&'static str, &'static str, &'static str, Operation)>,
}

macro_rules! methods {
    ($($name:ident $method:literal),*) => {$(
        pub(crate) fn $name<H, A>(self, path: &'static str, handler: H, operation: Operation) -> Self
        where H: Handler<A, App>, A: 'static {
            self.route($method, path, $name(handler), operation)
        }
    )*};
}

impl Routes {
    /// No routes yet.
    pub(crate) fn new() -> Self {
        Routes {
            tag: "",
            router: Router::new(),
            stats: Vec::new(),
            operations: Vec::new(),
        }
    }

    /// The routes from here on belong to `tag`.
    pub(crate) fn tag(mut self, tag: &'static str) -> Self {
        self.tag = tag;
        self
    }

    methods!(get "get", put "put", post "post", delete "delete");

    fn route(
        mut self,
        method: &'static str,
        path: &'static str,
        handler: MethodRouter<App>,
        operation: Operation,
    ) -> Self {
        let stats = Arc::new(RouteStats::new(method, path));
        self.stats.push(Arc::clone(&stats));
        self.operations.push((self.tag, method, path, operation));
        // `route_layer`, so that an answer to another method is not counted as this one's.
        self.router = self.router.route(path, handler.route_layer(Measure(stats)));
        self
    }

    pub(crate) fn into_router(self) -> Router<App> {
        self.router
    }

    /// The OpenAPI document.
    pub(crate) fn openapi(&self) -> Value {
        let mut paths = serde_json::Map::new();
        let mut schemas = serde_json::Map::new();
        for (name, schema) in self.schemas() {
            schemas.insert(name, serde_json::to_value(schema).expect("a schema is JSON"));
        }
        for (tag, method, path, operation) in &self.operations {
            let document = operation.document_at(tag, path);
            let path = path.replace("{*", "{");
            let entry = paths.entry(path).or_insert_with(|| json!({}));
            entry[*method] = document;
        }
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Onward",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "One replicated control plane for a data center.",
            },
            "paths": paths,
            "components": {"schemas": schemas},
        })
    }

    /// The schemas that the document is made of, some several times.
    pub(crate) fn schemas(&self) -> Schemas {
        let mut schemas = Schemas::new();
        add_schemas::<crate::wire::Problem>(&mut schemas);
        for (_, _, _, operation) in &self.operations {
            for add in &operation.schemas {
                add(&mut schemas);
            }
        }
        schemas
    }

    /// Method and path of every route.
    #[cfg(test)]
    pub(crate) fn list(&self) -> Vec<(&'static str, &'static str)> {
        let routes = self.operations.iter();
        routes.map(|(_, method, path, _)| (*method, *path)).collect()
    }
}

/// Counts and times the requests of one route.
#[derive(Clone)]
struct Measure(Arc<RouteStats>);

impl<S> Layer<S> for Measure {
    type Service = Measured<S>;
    fn layer(&self, inner: S) -> Measured<S> {
        Measured {
            inner,
            stats: Arc::clone(&self.0),
        }
    }
}

#[derive(Clone)]
struct Measured<S> {
    inner: S,
    stats: Arc<RouteStats>,
}

impl<S> Service<Request> for Measured<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let began = Instant::now();
        let span = self.stats.span(request.uri().path());
        let answer = span.in_scope(|| self.inner.call(request)).instrument(span);
        let stats = Arc::clone(&self.stats);
        Box::pin(async move {
            let response = answer.await?;
            stats.count(response.status(), began.elapsed());
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_parameters_are_found() {
        let found: Vec<_> = path_parameters("/v1/apps/{app}/kv/{*key}").collect();
        assert_eq!(found, ["app", "key"]);
    }
}
