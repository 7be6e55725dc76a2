//! The service on its own port, a client, and the two databases.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]
#![allow(dead_code, reason = "each test binary uses some of it")]

pub(crate) mod databases;
pub(crate) mod server;

use std::path::Path;

use axum_users::{Service, Settings};
use encx_config::Loader;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running service.
pub(crate) struct Running {
    address: String,
    end: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Running {
    /// Starts the service on a database, with its KEK file in a folder.
    pub(crate) async fn start(database_url: &str, folder: &Path) -> Self {
        let kek_file = folder.join("keks.encx");
        let variables = [
            ("ENCX_KMS", format!("local:{}", kek_file.display())),
            ("ENCX_KEY_STORE", database_url.to_owned()),
            ("ENCX_ALLOW_INSECURE", "1".to_owned()),
        ];
        let settings = Settings {
            encx: Loader::new().env(variables).load().unwrap(),
            listen: "127.0.0.1:0".to_owned(),
            admin_token: None,
            new_kek_file: Some(kek_file),
        };
        Self::serve(Service::start(&settings).await.unwrap()).await
    }

    /// Serves a service on its own port.
    pub(crate) async fn serve(service: Service) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (end, ended) = oneshot::channel();
        let served = tokio::spawn(async move {
            let ended = async move { ended.await.unwrap_or_default() };
            service.serve(listener, ended).await.unwrap();
        });
        Self { address, end, served }
    }

    /// Ends it as a signal does, and waits for the end.
    pub(crate) async fn end(self) {
        self.end.send(()).unwrap();
        self.served.await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Makes one request on its own connection. An empty answer is `null`.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.call_as("", method, path, body).await
    }

    /// The same, with a bearer token.
    pub(crate) async fn call_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.address)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let response = client.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = match serde_json::from_slice(&body) {
            Ok(json) => json,
            Err(_) if body.is_empty() => Value::Null,
            // A refusal by axum itself.
            Err(_) => String::from_utf8_lossy(&body).into(),
        };
        (status, body)
    }
}
