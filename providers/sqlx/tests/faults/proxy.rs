//! A TCP proxy that stops forwarding when the test says so, as networks do.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Everything,
    Nothing,
    Requests,
}

/// Stands between a member and its database. New connections are taken in every mode.
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
                // Without a server the client is hung up on.
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

    /// Forwards nothing any more. Connections stay open.
    pub(crate) fn freeze(&self) {
        self.mode.send_replace(Mode::Nothing);
    }

    /// Forwards requests, and loses the replies.
    pub(crate) fn lose_replies(&self) {
        self.mode.send_replace(Mode::Requests);
    }

    /// Forwards everything again, and what was held back while nothing was forwarded.
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
