//! The audit log: which key changed how, when, why and by whom.

use std::fmt;

use async_trait::async_trait;

use crate::key::{DataKeyId, KeyState, Scope};
use crate::store::{StoreError, Timestamp};

/// Lists the changes of keys. The store writes an entry with every change, in the same transaction.
///
/// Write access to the database suffices to forge, edit and delete entries.
///
/// # Errors
///
/// Every method: [`StoreError::Unavailable`], [`StoreError::NotMigrated`], [`StoreError::Corrupt`] or
/// [`StoreError::Database`].
///
/// # Cancellation
///
/// Every method may be cancelled by dropping its future.
#[async_trait]
#[allow(clippy::missing_errors_doc, reason = "the trait documents the errors once")]
pub trait AuditLog: fmt::Debug + Send + Sync {
    /// Lists entries in the order of their numbers, one page at a time.
    ///
    /// Numbers grow with time, but changes do not commit in the order of their numbers: within 15 seconds after a
    /// page, an entry may still appear before its last one. A follower of the log asks
    /// [`until`](AuditQuery::until) an earlier moment.
    async fn audit_page(&self, query: &AuditQuery) -> Result<AuditPage, StoreError>;
}

/// Which entries to list. A filter that is not set matches every entry.
///
/// ```
/// use encx_core::key::DataKeyId;
/// use encx_core::store::{AuditQuery, KeyStore, StoreError};
///
/// # async fn history(store: &dyn KeyStore, key: DataKeyId) -> Result<(), StoreError> {
/// let Some(log) = store.audit() else { return Ok(()) };
/// let mut query = AuditQuery::new(100).key(key);
/// loop {
///     let page = log.audit_page(&query).await?;
///     for entry in page.entries {
///         println!("{:?}: {:?} -> {}: {:?}", entry.at, entry.from, entry.to.name(), entry.reason);
///     }
///     match page.next {
///         Some(next) => query = query.after(next),
///         None => return Ok(()),
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuditQuery {
    /// The greatest number of entries in a page, 1 to 1000.
    pub limit: u32,
    /// Only entries with a greater number.
    pub after: Option<i64>,
    /// Only entries of this key.
    pub key: Option<DataKeyId>,
    /// Only entries of this scope's keys.
    pub scope: Option<Scope>,
    /// Only entries at or after this moment.
    pub since: Option<Timestamp>,
    /// Only entries before this moment.
    pub until: Option<Timestamp>,
}

impl AuditQuery {
    /// Asks for all entries, at most `limit` a page. The limit is clamped to 1 to 1000.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            limit: limit.clamp(1, 1000),
            after: None,
            key: None,
            scope: None,
            since: None,
            until: None,
        }
    }

    /// Continues after a page: pass its [`AuditPage::next`].
    #[must_use]
    pub fn after(mut self, number: i64) -> Self {
        self.after = Some(number);
        self
    }

    /// Restricts the query to one key.
    #[must_use]
    pub fn key(mut self, id: DataKeyId) -> Self {
        self.key = Some(id);
        self
    }

    /// Restricts the query to one scope.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Restricts the query to changes at or after a moment.
    #[must_use]
    pub fn since(mut self, moment: Timestamp) -> Self {
        self.since = Some(moment);
        self
    }

    /// Restricts the query to changes before a moment.
    #[must_use]
    pub fn until(mut self, moment: Timestamp) -> Self {
        self.until = Some(moment);
        self
    }

    /// Tells whether an entry matches. For stores whose database does not filter.
    #[must_use]
    pub fn matches(&self, entry: &AuditEntry) -> bool {
        self.after.is_none_or(|after| entry.number > after)
            && self.key.is_none_or(|key| entry.key == key)
            && self.scope.is_none_or(|scope| entry.scope == scope)
            && self.since.is_none_or(|since| entry.at >= since)
            && self.until.is_none_or(|until| entry.at < until)
    }
}

/// A page of the audit log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuditPage {
    /// The entries, in the order of their numbers.
    pub entries: Vec<AuditEntry>,
    /// The numbers, in order, of this page's rows that encx did not write. They have no entry.
    pub unreadable: Vec<i64>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<i64>,
}

impl AuditPage {
    /// Makes a page from a query for one entry more than the limit.
    #[must_use]
    pub fn of_one_more(mut entries: Vec<AuditEntry>, limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| more).map(|entry| entry.number);
        Self {
            entries,
            unreadable: Vec::new(),
            next,
        }
    }

    /// Makes a page from rows that encx may not have written: their numbers, and the entries that could be read. The
    /// query asked for one row more than the limit.
    #[must_use]
    pub fn of_rows(mut rows: Vec<(i64, Option<AuditEntry>)>, limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|(number, _)| *number);
        let (mut entries, mut unreadable) = (Vec::new(), Vec::new());
        for (number, entry) in rows {
            match entry {
                Some(entry) => entries.push(entry),
                None => unreadable.push(number),
            }
        }
        Self {
            entries,
            unreadable,
            next,
        }
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditEntry {
    /// The entry's number: unique, but with gaps.
    pub number: i64,
    /// When the key changed.
    pub at: Timestamp,
    /// The key. Its record may no longer exist.
    pub key: DataKeyId,
    /// The key's scope.
    pub scope: Scope,
    /// What changed.
    pub what: AuditedPart,
    /// The state before; `None` for an added key.
    pub from: Option<KeyState>,
    /// The state after. A change of wraps does not change it.
    pub to: KeyState,
    /// The reason that the caller gave.
    pub reason: Option<String>,
    /// The application that made the change, if it sets a name.
    pub application: Option<String>,
    /// The database user that made the change, if the database has users.
    pub db_user: Option<String>,
}

impl AuditEntry {
    /// Starts an entry. A store fills in the rest from its row.
    #[must_use]
    pub fn new(
        number: i64,
        at: Timestamp,
        key: DataKeyId,
        scope: Scope,
        what: AuditedPart,
        to: KeyState,
    ) -> Self {
        Self {
            number,
            at,
            key,
            scope,
            what,
            from: None,
            to,
            reason: None,
            application: None,
            db_user: None,
        }
    }
}

/// The part of a key that a change changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AuditedPart {
    /// The key was added.
    Added,
    /// The state, or the state to which a suspended key returns.
    State,
    /// The wraps.
    Wraps,
}

impl AuditedPart {
    /// All parts.
    pub const ALL: [Self; 3] = [Self::Added, Self::State, Self::Wraps];

    /// Returns the stored name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::State => "state",
            Self::Wraps => "wraps",
        }
    }

    /// Returns the part with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }
}
