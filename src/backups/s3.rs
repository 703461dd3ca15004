//! Backups in a bucket: uploaded in parts, an object once all of them are there.
//!
//! Requests are signed in their headers; neither a URL nor a log line ever has the credentials, not even where the store
//! repeats them in what it answers. Certificates are those of the system. What a node that dies leaves of an upload is no object; the store deletes it by its own rule for unfinished
//! uploads.

use super::PIECE_PATIENCE;
use super::config::{self, Credentials};
use super::destination::Name;
use anyhow::{Context, Result};
use futures::TryStreamExt;
use http_body_util::BodyExt;
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::client::legacy::{Client, connect::Connect};
use hyper_util::rt::TokioExecutor;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig, WriteMultipart};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// The size of a part: 10,000 of them, the most that an object has, are 80 GB.
const PART_BYTES: usize = 8 << 20;
/// The parts that are under way at once.
const PARTS_MAX: usize = 2;
/// How long a request may take until its answer begins.
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);
/// How long a request is tried again.
const RETRY_DEADLINE: Duration = Duration::from_secs(120);
/// How long it waits before it tries one again, at the most.
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// What a store says of a bucket that is missing; only by its words, since an answer to a list has no kind of its own.
const MISSING: &str = "NoSuchBucket";
/// The statuses of a store that does not take the credentials, or not for this.
const REFUSED: [&str; 2] = ["403 Forbidden", "401 Unauthorized"];
/// The most that is shown of what a store answers to a request that it refuses.
const SHOWN_CHARS: usize = 600;

// A backup whose sender gave up first would have been tried again for nothing.
const _: () = assert!(
    RETRY_DEADLINE.as_secs() + BACKOFF_MAX.as_secs() + REQUEST_DEADLINE.as_secs() < PIECE_PATIENCE.as_secs()
);

/// A bucket, and what the names in it begin with.
pub struct Bucket {
    store: AmazonS3,
    prefix: Path,
    place: Arc<Place>,
}

/// How a bucket is shown, and what never is.
struct Place {
    shown: String,
    bucket: String,
    hidden: [String; 2],
}

/// An object on its way.
pub struct Upload {
    parts: WriteMultipart,
    place: Arc<Place>,
}

impl Bucket {
    pub fn new(config: &config::S3) -> Result<Bucket> {
        let credentials = Credentials::load(config.credentials_file.as_deref())?;
        let endpoint = config.endpoint.trim_end_matches('/');
        let retry = RetryConfig {
            retry_timeout: RETRY_DEADLINE,
            backoff: BackoffConfig {
                max_backoff: BACKOFF_MAX,
                ..BackoffConfig::default()
            },
            ..RetryConfig::default()
        };
        let prefix = config.prefix.trim_matches('/');
        let place = Arc::new(Place {
            shown: format!("{endpoint}/{}/{prefix}", config.bucket),
            bucket: config.bucket.clone(),
            hidden: [
                credentials.secret_access_key.clone(),
                credentials.access_key_id.clone(),
            ],
        });
        let store = AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_allow_http(endpoint.starts_with("http://"))
            .with_virtual_hosted_style_request(false)
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_access_key_id(credentials.access_key_id)
            .with_secret_access_key(credentials.secret_access_key)
            .with_retry(retry)
            .with_http_connector(Connector)
            .build()
            .context("backup.s3")?;
        Ok(Bucket {
            store,
            prefix: Path::parse(prefix).context("backup.s3.prefix")?,
            place,
        })
    }

    fn path(&self, name: &Name) -> Path {
        self.prefix.clone().join(name.to_string())
    }

    pub async fn list(&self) -> Result<Vec<Name>> {
        let listed = self
            .store
            .list(Some(&self.prefix))
            .map_ok(|object| object.location);
        let found = listed.try_filter_map(|path| async move { Ok(path.filename().and_then(Name::parse)) });
        let listed: Result<Vec<Name>, _> = found.try_collect().await;
        listed.map_err(|error| self.place.error(&error))
    }

    pub async fn begin(&self, name: &Name) -> Result<Upload> {
        let begun = self.store.put_multipart(&self.path(name)).await;
        let upload = begun.map_err(|error| self.place.error(&error))?;
        Ok(Upload {
            parts: WriteMultipart::new_with_chunk_size(upload, PART_BYTES),
            place: self.place.clone(),
        })
    }

    pub async fn delete(&self, name: &Name) -> Result<()> {
        let deleted = self.store.delete(&self.path(name)).await;
        deleted.map_err(|error| self.place.error(&error))
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place.shown)
    }
}

impl Place {
    /// What went wrong, in one line: which bucket, what to do where that is known, and what the store said.
    fn error(&self, error: &object_store::Error) -> anyhow::Error {
        let text = causes(error);
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let remedy = if has(&[MISSING]) {
            format!(
                "the bucket `{}` is not there: it has to be made first: ",
                self.bucket
            )
        } else if has(&REFUSED) {
            format!(
                "the bucket `{}` is not open to these credentials: check both, and what they are allowed: ",
                self.bucket
            )
        } else {
            String::new()
        };
        let said = self.clean(&text);
        anyhow::anyhow!("{}: {remedy}{said}", self.shown)
    }

    /// The text in one line that is not too long and has no credentials.
    fn clean(&self, text: &str) -> String {
        let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for hidden in self.hidden.iter().filter(|hidden| !hidden.is_empty()) {
            text = text.replace(hidden.as_str(), "(hidden)");
        }
        match text.char_indices().nth(SHOWN_CHARS) {
            Some((at, _)) => format!("{}...", &text[..at]),
            None => text,
        }
    }
}

/// An error with its causes; most show theirs themselves, which are not shown twice.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let said = deeper.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = deeper.source();
    }
    text
}

impl Upload {
    pub async fn write(&mut self, piece: Vec<u8>) -> Result<()> {
        let capacity = self.parts.wait_for_capacity(PARTS_MAX).await;
        capacity.map_err(|error| self.place.error(&error))?;
        self.parts.put(piece.into());
        Ok(())
    }

    pub async fn finish(self) -> Result<()> {
        let finished = self.parts.finish().await;
        finished.map_err(|error| self.place.error(&error))?;
        Ok(())
    }

    pub async fn abort(self) {
        if let Err(error) = self.parts.abort().await {
            let error = self.place.error(&error);
            tracing::warn!(%error, "an upload could not be taken back");
        }
    }
}

/// Makes connections as the rest of this program does, in TLS where the endpoint asks for it.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let tls = hyper_rustls::HttpsConnectorBuilder::new().with_native_roots();
        let service = match tls {
            Ok(tls) => HttpClient::new(Service(
                Client::builder(TokioExecutor::new()).build(tls.https_or_http().enable_http1().build()),
            )),
            // No certificates on this machine: good enough for http, and https says so when it is tried.
            Err(error) => {
                tracing::warn!(%error, "the system has no certificates: https will not work");
                HttpClient::new(Service(Client::builder(TokioExecutor::new()).build(Tcp::new())))
            }
        };
        Ok(service)
    }
}

struct Service<C>(Client<C, HttpRequestBody>);

impl<C> fmt::Debug for Service<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

impl<C: Connect + Clone + Send + Sync + 'static> HttpService for Service<C> {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let answered = tokio::time::timeout(REQUEST_DEADLINE, self.0.request(request)).await;
            match answered {
                Ok(Ok(response)) => Ok(response.map(|body| {
                    HttpResponseBody::new(
                        body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error)),
                    )
                })),
                Ok(Err(error)) if error.is_connect() => Err(HttpError::new(HttpErrorKind::Connect, error)),
                Ok(Err(error)) => Err(HttpError::new(HttpErrorKind::Request, error)),
                Err(late) => Err(HttpError::new(HttpErrorKind::Timeout, late)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            shown: "https://s3.example/backups/north".to_owned(),
            bucket: "backups".to_owned(),
            hidden: ["hush".to_owned(), "KEYID7".to_owned()],
        }
    }

    #[test]
    fn errors_name_the_bucket_and_what_to_do_and_no_credentials() {
        let answered = |status: &str, code: &str| object_store::Error::Generic {
            store: "S3",
            source: format!("{status}: <Code>{code}</Code>\n<Key>KEYID7</Key>\n <Sign>hush</Sign>").into(),
        };
        for (error, remedy) in [
            (answered("403 Forbidden", "SignatureDoesNotMatch"), "is not open"),
            (answered("404 Not Found", "NoSuchBucket"), "is not there"),
        ] {
            let error = place().error(&error).to_string();
            let begins = format!("https://s3.example/backups/north: the bucket `backups` {remedy}");
            assert!(error.starts_with(&begins), "{error}");
            assert!(
                error.ends_with("</Code> <Key>(hidden)</Key> <Sign>(hidden)</Sign>"),
                "{error}"
            );
        }
        let other = place()
            .error(&answered("404 Not Found", "NoSuchUpload"))
            .to_string();
        assert!(!other.contains("is not there"), "{other}");
    }

    #[test]
    fn of_a_long_answer_the_beginning_is_shown() {
        let text = place().clean(&"ä".repeat(2 * SHOWN_CHARS));
        assert_eq!(text.chars().count(), SHOWN_CHARS + 3);
    }
}
