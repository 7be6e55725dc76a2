//! A TCP proxy that can stop forwarding, like a failing network.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Everything,
    Nothing,
    Requests,
}

/// Sits between a member and its database. It accepts new connections in every mode.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Forwards to a port of this machine.
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, watched) = watch::channel(Mode::Everything);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Without a server, the client's connection is closed.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::spawn(copy(from_client, to_server, watched.clone(), false));
                    tokio::spawn(copy(from_server, to_client, watched.clone(), true));
                }
            }
        });
        Self { port, mode, task }
    }

    /// Stops forwarding. Connections stay open.
    pub(crate) fn freeze(&self) {
        self.mode.send_replace(Mode::Nothing);
    }

    /// Forwards requests, and drops the replies.
    pub(crate) fn lose_replies(&self) {
        self.mode.send_replace(Mode::Requests);
    }

    /// Forwards everything again, including what was held back.
    pub(crate) fn forward(&self) {
        self.mode.send_replace(Mode::Everything);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Copies one direction.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    are_replies: bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let Ok(mode) = mode
            .wait_for(|mode| *mode != Mode::Nothing)
            .await
            .map(|mode| *mode)
        else {
            return;
        };
        let lost = are_replies && mode == Mode::Requests;
        if !lost && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
