//! Backups in a bucket: uploaded in parts, an object once all of them are there.
//!
//! Requests are signed in their headers; neither a URL nor a log line ever has the credentials. Certificates are those of
//! the system. What a node that dies leaves of an upload is no object; the store deletes it by its own rule for unfinished
//! uploads.

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
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig, WriteMultipart};
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

/// The size of a part: 10,000 of them, the most that an object has, are 80 GB.
const PART_BYTES: usize = 8 << 20;
/// The parts that are under way at once.
const PARTS_MAX: usize = 2;
/// How long a request may take until its answer begins.
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);
/// How long a request is tried again.
const RETRY_DEADLINE: Duration = Duration::from_secs(120);

/// A bucket, and what the names in it begin with.
pub struct Bucket {
    store: AmazonS3,
    prefix: Path,
    shown: String,
}

/// An object on its way.
pub struct Upload(WriteMultipart);

impl Bucket {
    pub fn new(config: &config::S3) -> Result<Bucket> {
        let credentials = Credentials::load(config.credentials_file.as_deref())?;
        let endpoint = config.endpoint.trim_end_matches('/');
        let retry = RetryConfig {
            retry_timeout: RETRY_DEADLINE,
            ..RetryConfig::default()
        };
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
        let prefix = config.prefix.trim_matches('/');
        Ok(Bucket {
            store,
            prefix: Path::parse(prefix).context("backup.s3.prefix")?,
            shown: format!("{endpoint}/{}/{prefix}", config.bucket),
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
        found.try_collect().await.with_context(|| self.shown.clone())
    }

    pub async fn begin(&self, name: &Name) -> Result<Upload> {
        let begun = self.store.put_multipart(&self.path(name)).await;
        let upload = begun.with_context(|| self.shown.clone())?;
        Ok(Upload(WriteMultipart::new_with_chunk_size(upload, PART_BYTES)))
    }

    pub async fn delete(&self, name: &Name) -> Result<()> {
        let deleted = self.store.delete(&self.path(name)).await;
        deleted.with_context(|| self.shown.clone())
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Upload {
    pub async fn write(&mut self, piece: Vec<u8>) -> Result<()> {
        self.0.wait_for_capacity(PARTS_MAX).await?;
        self.0.put(piece.into());
        Ok(())
    }

    pub async fn finish(self) -> Result<()> {
        self.0.finish().await?;
        Ok(())
    }

    pub async fn abort(self) {
        if let Err(error) = self.0.abort().await {
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
