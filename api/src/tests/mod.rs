//! The router, driven in-process over a node in memory.

mod areas;
mod backups;
mod client;
mod edges;
mod history;
mod manifests;
mod routes;
mod streams;

use crate::{Limits, Services, router};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use onward_statemachine::testing::SingleNode;
use serde_json::Value;
use std::sync::Arc;
use tower::ServiceExt;

/// A node with its API.
struct Site {
    node: Arc<SingleNode>,
    services: Services,
    router: Router,
}

/// An answer, taken apart.
struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answered {
    /// The answer, which must be a success.
    #[track_caller]
    fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body
    }

    /// The problem, which must have this status and code, and whose detail must hold all of `words`.
    #[track_caller]
    fn problem(self, status: u16, code: &str, words: &[&str]) -> Value {
        assert_eq!(
            (self.status.as_u16(), self.body["code"].as_str()),
            (status, Some(code)),
            "{}",
            self.body
        );
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        let detail = self.body["detail"].as_str().expect("a problem has a detail");
        for word in words {
            assert!(detail.contains(word), "`{detail}` does not say `{word}`");
        }
        self.body
    }
}

impl Site {
    fn new() -> Self {
        Site::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let node = Arc::new(SingleNode::new());
        let mut services = Services::new(node.clone(), node.clone(), node.clone(), node.clone());
        services.limits = limits;
        let router = router(services.clone());
        Site {
            node,
            services,
            router,
        }
    }

    async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Response {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).expect("a method"))
            .uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).expect("a request");
        self.router
            .clone()
            .oneshot(request)
            .await
            .expect("the router never fails")
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answered {
        let response = self.raw(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Answered {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    async fn get(&self, path: &str) -> Answered {
        self.send("GET", path, &[], "").await
    }

    async fn json(&self, method: &str, path: &str, body: &Value) -> Answered {
        self.json_with(method, path, &[], body).await
    }

    async fn json_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answered {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        self.send(method, path, &headers, body.to_string()).await
    }

    async fn put(&self, key: &str, value: &str) -> Value {
        let path = format!("/v1/kv/{key}");
        self.send(
            "PUT",
            &path,
            &[("content-type", "application/octet-stream")],
            value.to_owned(),
        )
        .await
        .ok()
    }
}
