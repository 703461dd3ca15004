//! How answers are made: JSON, with the revision in the body and in a header.

use crate::problem::Problem;
use crate::wire::{Page, Stamped};
use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode, header};
use onward_statemachine::{Reply, Revision};
use serde::Serialize;

/// The header that carries the revision of an answer.
pub(crate) const REVISION: HeaderName = HeaderName::from_static("onward-revision");
/// The header that carries the age of a local answer, in ms.
pub(crate) const AGE_MS: HeaderName = HeaderName::from_static("onward-age-ms");

/// What a handler ends with.
pub(crate) type Answer = Result<Response, Problem>;

/// A write that was accepted.
#[derive(Debug)]
pub(crate) struct Done {
    pub revision: Revision,
    pub reply: Reply,
}

impl Done {
    /// Answers with nothing but the revision.
    pub(crate) fn answer(&self) -> Answer {
        self.answer_with(&())
    }

    /// Answers with `value` beside the revision.
    pub(crate) fn answer_with<T: Serialize>(&self, value: &T) -> Answer {
        json(value, self.revision, None)
    }
}

/// What a read saw, and when that was.
#[derive(Debug)]
pub(crate) struct Seen<T> {
    pub value: T,
    pub revision: Revision,
    /// How old a local answer is, in ms.
    pub age_ms: Option<u64>,
}

impl<T> Seen<T> {
    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> Seen<U> {
        Seen {
            value: map(self.value),
            revision: self.revision,
            age_ms: self.age_ms,
        }
    }
}

impl<T: Serialize> Seen<T> {
    pub(crate) fn answer(self) -> Answer {
        json(&self.value, self.revision, self.age_ms)
    }
}

impl<T> Seen<Option<T>> {
    /// The value, or the problem that there is none.
    pub(crate) fn or_else(self, missing: impl FnOnce() -> Problem) -> Result<Seen<T>, Problem> {
        let revision = self.revision;
        match self.value {
            Some(value) => Ok(Seen {
                value,
                revision,
                age_ms: self.age_ms,
            }),
            None => Err(missing().at(revision)),
        }
    }
}

/// A page of a list whose rows become `T`.
pub(crate) fn page<R, T>(rows: Vec<R>, next: Option<String>, item: impl FnMut(R) -> T) -> Page<T> {
    Page {
        items: rows.into_iter().map(item).collect(),
        next,
    }
}

fn json<T: Serialize>(value: &T, revision: Revision, age_ms: Option<u64>) -> Answer {
    let stamped = Stamped {
        value,
        revision: revision.0,
        age_ms,
    };
    let body = serde_json::to_vec(&stamped).expect("wire types are maps with text keys");
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    stamp(headers, revision, age_ms);
    Ok(response)
}

/// Bytes as they are, with the revision in a header.
pub(crate) fn raw(bytes: Vec<u8>, revision: Revision, age_ms: Option<u64>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    stamp(headers, revision, age_ms);
    response
}

fn stamp(headers: &mut http::HeaderMap, revision: Revision, age_ms: Option<u64>) {
    headers.insert(REVISION, HeaderValue::from(revision.0));
    if let Some(age_ms) = age_ms {
        headers.insert(AGE_MS, HeaderValue::from(age_ms));
    }
}

/// A JSON document outside of any revision.
pub(crate) fn document(status: StatusCode, content_type: &'static str, body: bytes::Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
