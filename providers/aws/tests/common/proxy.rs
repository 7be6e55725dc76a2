//! A proxy in front of the KMS server that counts calls and can be taken down.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const TARGET: &str = "x-amz-target: TrentService.";

pub(crate) struct Proxy {
    url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    calls: Mutex<BTreeMap<String, usize>>,
    is_down: AtomicBool,
    /// How many more calls are forwarded, if limited.
    left: Mutex<Option<usize>>,
    stalled: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::<Shared>::default();
        let server = super::server_url().trim_start_matches("http://").to_owned();
        let of_listener = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(forward(client, server.clone(), Arc::clone(&of_listener)));
            }
        });
        Self { url, shared }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Starts or stops cutting every connection.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.shared.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Forwards this many more calls and leaves later ones without an answer; `None` forwards all again.
    pub(crate) fn forward_only(&self, calls: Option<usize>) {
        *self.shared.left.lock().unwrap() = calls;
        self.shared.stalled.store(0, Ordering::SeqCst);
    }

    /// Tells whether a call is waiting for an answer that will not arrive.
    pub(crate) fn is_stalled(&self) -> bool {
        self.shared.stalled.load(Ordering::SeqCst) > 0
    }

    /// Returns the calls since the last query, by operation.
    pub(crate) fn calls(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.shared.calls.lock().unwrap())
    }

    /// Checks the calls since the last query.
    #[track_caller]
    pub(crate) fn expect(&self, what: &str, expected: &[(&str, usize)]) {
        let expected = expected.iter().map(|(name, count)| ((*name).to_owned(), *count));
        assert_eq!(self.calls(), expected.collect(), "{what}");
    }
}

async fn forward(client: TcpStream, server: String, shared: Arc<Shared>) {
    if shared.is_down.load(Ordering::SeqCst) {
        return;
    }
    let server = TcpStream::connect(server).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = async {
        let mut seen = String::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            let Ok(read @ 1..) = from_client.read(&mut buffer).await else {
                return;
            };
            if shared.is_down.load(Ordering::SeqCst) {
                return;
            }
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
            // A header may arrive in two pieces: the rest after the last complete one is kept.
            while let Some((_, rest)) = seen.split_once(TARGET) {
                let Some((name, rest)) = rest.split_once("\r\n") else {
                    break;
                };
                *shared.calls.lock().unwrap().entry(name.to_owned()).or_default() += 1;
                seen = rest.to_owned();
                let stalls = match &mut *shared.left.lock().unwrap() {
                    None => false,
                    Some(0) => true,
                    Some(left) => {
                        *left -= 1;
                        false
                    }
                };
                if stalls {
                    shared.stalled.fetch_add(1, Ordering::SeqCst);
                    std::future::pending::<()>().await;
                }
            }
            if to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let answering = tokio::io::copy(&mut from_server, &mut to_client);
    // The connection ends when either side does.
    tokio::select! {
        () = asking => {}
        _ = answering => {}
    }
}
