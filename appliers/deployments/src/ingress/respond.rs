//! What the ingress says by itself: short, and what is wrong.

use super::upstream::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};

/// An answer of the ingress: a problem document for those who take JSON, a line of text for others.
pub(super) fn problem(status: StatusCode, accepts: &HeaderMap, detail: &str) -> Response<Body> {
    let json = accepts
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("json"));
    let title = status.canonical_reason().unwrap_or("Error");
    let (kind, text) = if json {
        let document = serde_json::json!({"title": title, "status": status.as_u16(), "detail": detail});
        ("application/problem+json", document.to_string())
    } else {
        (
            "text/plain; charset=utf-8",
            format!("{} {title}: {detail}\n", status.as_u16()),
        )
    };
    let body = Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::SERVER, HeaderValue::from_static("onward-ingress"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
