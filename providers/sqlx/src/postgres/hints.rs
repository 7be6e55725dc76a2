//! Hints of changes: their payloads, and the connection that listens for them.

use std::collections::HashSet;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use backon::BackoffBuilder;
use encx_core::key::Scope;
use encx_core::store::{Fence, KeyHint};
use futures_core::Stream;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Executor, Row};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connections::{CONNECT, connect_once};
use super::error::NotConnected;
use super::sql;

/// The channel on which writers notify.
pub(super) const CHANNEL: &str = "encx_keys";

/// A connection silent for this long is checked, and then has [`ANSWER`] to respond.
const SILENCE: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(4);

/// The pauses between attempts to connect grow between these bounds. They restart from the shortest after a connection
/// that lasted as long as the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Hints that come faster are batched: their reader goes through all that it holds.
const BETWEEN_HINTS: Duration = Duration::from_millis(20);

/// A gap makes its reader read again all that it holds, and any user who can connect to the database can cause one.
const BETWEEN_GAPS: Duration = Duration::from_millis(500);

/// The maximum number of scopes that wait for their reader. More become one gap.
const MAX_SCOPES: usize = 10_000;

/// Returns the payload that reports a changed scope.
pub(super) fn of_scope(scope: &Scope) -> String {
    use std::fmt::Write;
    let mut payload = "scope:".to_owned();
    for byte in scope.as_bytes() {
        // Writing to a `String` does not fail.
        let _ = write!(payload, "{byte:02x}");
    }
    payload
}

/// Reads a payload. A malformed one may mean anything, so it is a gap.
fn read(payload: &str) -> KeyHint {
    let known = match payload.split_once(':') {
        Some(("scope", hex)) => scope_of(hex).map(|scope| KeyHint::Changed { scope }),
        Some(("fence", number)) => fence_of(number).map(KeyHint::Fence),
        _ => None,
    };
    known.unwrap_or(KeyHint::Gap)
}

fn scope_of(hex: &str) -> Option<Scope> {
    let mut bytes = [0; Scope::LEN];
    if hex.len() != 2 * Scope::LEN || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(Scope::from_bytes(bytes))
}

fn fence_of(number: &str) -> Option<Fence> {
    let number: i64 = number.parse().ok()?;
    (number > 0).then(|| Fence::new(number))
}

/// Why a connection is abandoned.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the server closed the connection")]
    Closed,
    #[error("the server does not answer")]
    Silent,
    #[error(
        "the session no longer listens: `listen_url` must lead to the server itself, not through a transaction pooler"
    )]
    Deaf,
    #[error(transparent)]
    NotConnected(#[from] NotConnected),
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

/// The hints of one database, from a task that starts with the first poll and ends with the stream.
pub(super) struct Hints {
    options: Option<Box<PgConnectOptions>>,
    batches: Option<mpsc::Receiver<Vec<KeyHint>>>,
    batch: std::vec::IntoIter<KeyHint>,
}

impl Hints {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self {
            options: Some(Box::new(options)),
            batches: None,
            batch: Vec::new().into_iter(),
        }
    }
}

impl Stream for Hints {
    type Item = KeyHint;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<KeyHint>> {
        let this = &mut *self;
        if let Some(options) = this.options.take()
            && let Ok(runtime) = Handle::try_current()
        {
            // One batch waits; later hints are collected for the next.
            let (sender, receiver) = mpsc::channel(1);
            this.batches = Some(receiver);
            runtime.spawn(listen_forever(options, sender));
        }
        loop {
            if let Some(hint) = this.batch.next() {
                return Poll::Ready(Some(hint));
            }
            let Some(batches) = &mut this.batches else {
                return Poll::Ready(None);
            };
            match ready!(batches.poll_recv(context)) {
                Some(batch) => this.batch = batch.into_iter(),
                None => this.batches = None,
            }
        }
    }
}

async fn listen_forever(options: Box<PgConnectOptions>, batches: mpsc::Sender<Vec<KeyHint>>) {
    let mut pending = Pending::new();
    let mut pauses = pauses();
    loop {
        let began = Instant::now();
        let lost = tokio::select! {
            () = batches.closed() => return,
            lost = connect(&options) => match lost {
                Ok(listener) => match attend(listener, &mut pending, &batches).await {
                    Ok(()) => return,
                    Err(lost) => lost,
                },
                Err(lost) => lost,
            }
        };
        tracing::warn!(target: "encx::store", error = %lost, "the connection that listens for changed keys was lost; it is opened again");
        // Deliver what was received before the loss, unless the reader is busy. A gap follows after the next connection
        // anyway.
        if !pending.is_empty()
            && let Ok(permit) = batches.try_reserve()
        {
            permit.send(pending.take());
        }
        if began.elapsed() >= LONGEST_PAUSE {
            pauses = self::pauses();
        }
        tokio::select! {
            () = batches.closed() => return,
            () = sleep(pauses.next().unwrap_or(LONGEST_PAUSE)) => {}
        }
    }
}

fn pauses() -> impl Iterator<Item = Duration> {
    backon::ExponentialBuilder::default()
        .with_min_delay(SHORTEST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Connects and listens.
async fn connect(options: &PgConnectOptions) -> Result<PgListener, Lost> {
    // The pool would hide why connecting fails.
    connect_once(options).await?;
    let connecting = async {
        // The driver only listens on a pool's connection. This pool has no other, and is not shared.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(CONNECT)
            .connect_lazy_with(options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        // The driver would reconnect without reporting missed notifications.
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(listener)
    };
    timeout(CONNECT, connecting).await.unwrap_or(Err(Lost::Silent))
}

/// Listens until the connection is lost, or the reader is gone.
async fn attend(
    mut listener: PgListener,
    pending: &mut Pending,
    batches: &mpsc::Sender<Vec<KeyHint>>,
) -> Result<(), Lost> {
    // From here on nothing is missed; earlier changes are unknown.
    pending.add(&KeyHint::Gap);
    let mut heard = Instant::now();
    loop {
        let handing_over = async {
            sleep_until(pending.due).await;
            batches.reserve().await
        };
        tokio::select! {
            () = batches.closed() => return Ok(()),
            permit = handing_over, if !pending.is_empty() => match permit {
                Ok(permit) => permit.send(pending.take()),
                Err(_) => return Ok(()),
            },
            told = listener.try_recv() => {
                pending.add(&read(told?.ok_or(Lost::Closed)?.payload()));
                heard = Instant::now();
            }
            () = sleep_until(heard + SILENCE) => {
                timeout(ANSWER, check(&mut listener)).await.unwrap_or(Err(Lost::Silent))?;
                while let Some(told) = listener.next_buffered() {
                    pending.add(&read(told.payload()));
                }
                heard = Instant::now();
            }
        }
    }
}

/// Checks that the server answers, and that this session still listens.
async fn check(listener: &mut PgListener) -> Result<(), Lost> {
    let row = listener.fetch_one(sql::LISTENS).await?;
    if row.try_get(0)? { Ok(()) } else { Err(Lost::Deaf) }
}

/// Hints that were received and not delivered yet.
struct Pending {
    scopes: HashSet<Scope>,
    fence: Option<Fence>,
    gap: bool,
    /// The earliest time of the next batch, and of the next one with a gap.
    next: Instant,
    next_gap: Instant,
    /// The earliest time to deliver what is pending.
    due: Instant,
}

impl Pending {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            scopes: HashSet::new(),
            fence: None,
            gap: false,
            next: now,
            next_gap: now,
            due: now,
        }
    }

    fn is_empty(&self) -> bool {
        !self.gap && self.is_empty_but_for_gap()
    }

    fn is_empty_but_for_gap(&self) -> bool {
        self.scopes.is_empty() && self.fence.is_none()
    }

    fn add(&mut self, hint: &KeyHint) {
        match hint {
            KeyHint::Changed { scope } => {
                self.scopes.insert(*scope);
                if self.scopes.len() > MAX_SCOPES {
                    self.scopes.clear();
                    self.gap = true;
                }
            }
            KeyHint::Fence(fence) => self.fence = self.fence.max(Some(*fence)),
            _ => self.gap = true,
        }
        self.schedule();
    }

    /// Takes what may be delivered now. A gap that follows another too closely remains.
    fn take(&mut self) -> Vec<KeyHint> {
        let now = Instant::now();
        let mut batch = Vec::with_capacity(self.scopes.len() + 2);
        if self.gap && now >= self.next_gap {
            self.gap = false;
            self.next_gap = now + BETWEEN_GAPS;
            batch.push(KeyHint::Gap);
        }
        batch.extend(self.scopes.drain().map(|scope| KeyHint::Changed { scope }));
        batch.extend(self.fence.take().map(KeyHint::Fence));
        self.next = now + BETWEEN_HINTS;
        self.schedule();
        batch
    }

    fn schedule(&mut self) {
        self.due = if self.is_empty_but_for_gap() {
            self.next.max(self.next_gap)
        } else {
            self.next
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_back_and_others_are_gaps() {
        let scope = Scope::from_bytes(std::array::from_fn(|n| u8::try_from(n * 8).unwrap()));
        assert_eq!(read(&of_scope(&scope)), KeyHint::Changed { scope });
        assert_eq!(read("fence:7"), KeyHint::Fence(Fence::new(7)));
        let payload = of_scope(&scope);
        let others = [
            "",
            "scope:",
            "fence:",
            "fence:0",
            "fence:-1",
            "fence:9223372036854775808",
            "scope",
            &payload[..payload.len() - 1],
            &format!("{payload}0"),
            &payload.replace("08", "+8"),
            &payload.replace("08", "é"),
            &"x".repeat(7999),
        ];
        for other in others {
            assert_eq!(read(other), KeyHint::Gap, "{other:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_refused_says_to_where() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(address.port())
            .password("hunter2");
        let Err(lost) = connect(&options).await else {
            panic!("nothing listens there");
        };
        let text = lost.to_string();
        assert!(
            text.contains(&address.to_string()) && text.contains("refused"),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn hints_are_bounded_and_gaps_keep_their_distance() {
        let mut pending = Pending::new();
        pending.add(&KeyHint::Gap);
        assert_eq!(pending.take(), [KeyHint::Gap]);
        let scope = |n: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            KeyHint::Changed {
                scope: Scope::from_bytes(bytes),
            }
        };
        // A second gap waits, without delaying other hints.
        let began = Instant::now();
        pending.add(&KeyHint::Gap);
        assert_eq!(pending.due, began + BETWEEN_GAPS);
        for _ in 0..1000 {
            pending.add(&scope(1));
        }
        assert_eq!(pending.due, began + BETWEEN_HINTS);
        sleep_until(pending.due).await;
        assert_eq!(pending.take(), [scope(1)]);
        sleep_until(pending.due).await;
        assert_eq!(began.elapsed(), BETWEEN_GAPS);
        assert_eq!(pending.take(), [KeyHint::Gap]);
        assert!(pending.is_empty());
        // Hints beyond the bound become one gap.
        sleep(BETWEEN_GAPS).await;
        let max = u32::try_from(MAX_SCOPES).unwrap();
        (0..=max).for_each(|n| pending.add(&scope(n)));
        assert_eq!(pending.take(), [KeyHint::Gap]);
    }
}
