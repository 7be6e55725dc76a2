//! What all walks over rows share: pages of ids, what became of rows, and writes that compare before they swap.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use encx::jobs::{JobError, WalkOutcome, WalkPage};
use encx::store::{JobStatus, StoreError};
use encx::{Aad, Ciphertext, Crypto, EncryptionContext, Error, Plaintext};

use crate::cell::{Cell, Position};
use crate::error::RowsError;
use crate::layout::Change;
use crate::layout::{Layout, Read, Row, RowContext, Unread};
use crate::rows::Rows;
use crate::sql::{Columns, Filter, Write};

/// How many times a row that another session changes or locks is read again at once.
const MAX_RACES: usize = 3;

/// How many rows are written at once. In that time SQLite lets no other connection write.
const BATCH: usize = 100;

/// How many copies of a row's values are in memory at most while it is worked on; `tests/memory.rs` measures it.
const COPIES: u64 = 8;

/// What a row takes besides, in bytes.
const ROW: u64 = 1024;

/// A row of one of the walk's columns.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct Item {
    column: u16,
    row: Read,
}

/// The columns of a walk, one after the other.
pub(crate) struct Walked {
    pub(crate) rows: Rows,
    pub(crate) layouts: Vec<Layout>,
    filter: Filter,
    /// What a page has of each row.
    columns: Columns,
    contracts: bool,
    /// Whether the tables were found to be as they are described.
    checked: AtomicBool,
}

/// A row that can be worked on: it has all that is needed to open and to seal its value.
pub(crate) struct Bound {
    pub(crate) row: Row,
    pub(crate) context: EncryptionContext,
    pub(crate) aad: Aad,
}

/// What is to be done with a row that was read.
pub(crate) enum Decided {
    Change(Change),
    Failed(Row, JobError),
    /// Nothing is left to do: another session changed the row.
    Nothing,
    /// It is as it should be.
    Verified,
}

/// Decides what to write.
#[async_trait]
pub(crate) trait Decide: Sync {
    async fn decide(&self, column: u16, rows: Vec<Row>) -> Vec<Decided>;
}

impl Walked {
    pub(crate) fn new(rows: Rows, layouts: Vec<Layout>, filter: Filter, contracts: bool) -> Self {
        let checked = AtomicBool::new(false);
        Self {
            rows,
            layouts,
            filter,
            columns: Columns::Head,
            contracts,
            checked,
        }
    }

    /// Reads short rows whole with the page, for a walk that needs all of each row.
    pub(crate) fn whole(mut self) -> Self {
        self.columns = Columns::Short;
        self
    }

    /// Names a job that does this to the walk's columns. Each name is quoted, so that no two walks are called the same.
    pub(crate) fn job_name(&self, what: &str) -> String {
        job_name(what, &self.layouts)
    }

    /// Describes the walk for a job's plan.
    pub(crate) fn plan(&self, what: &str) -> String {
        let mut plan = what.to_owned();
        for layout in &self.layouts {
            plan.push_str(&format!(
                " {:?}",
                (&layout.described, layout.plain.as_ref().map(|plain| &plain.name))
            ));
        }
        let mut end = plan.len().min(8000);
        while !plan.is_char_boundary(end) {
            end -= 1;
        }
        plan.truncate(end);
        // A NUL stands in no name that was accepted; in a value of a context it is escaped.
        plan
    }

    pub(crate) async fn read(
        &self,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
        limit: u32,
    ) -> Result<WalkPage<Item>, JobError> {
        if !self.checked.load(Ordering::Relaxed) {
            for layout in &self.layouts {
                self.rows.check(layout, self.contracts).await?;
            }
            self.checked.store(true, Ordering::Relaxed);
        }
        let begin = Position { column: 0, row: None };
        let after = after.map_or(Ok(begin), position)?;
        let upto = upto.map(position).transpose()?;
        let Some(layout) = self.layouts.get(usize::from(after.column)) else {
            return Ok(WalkPage::new(Vec::new(), None));
        };
        let last = match &upto {
            Some(upto) if upto.column == after.column => match &upto.row {
                Some(row) => Some(row),
                None => return Ok(WalkPage::new(Vec::new(), None)),
            },
            _ => None,
        };
        let (column, mut rows, mut behind) = (after.column, Vec::new(), after.row);
        let next = loop {
            let between = (behind.as_ref(), last);
            let (read, end) = self
                .rows
                .page(layout, (self.filter, self.columns), between, limit)
                .await?;
            rows.extend(read);
            let Some(end) = end else {
                let (column, row) = (column + 1, None);
                let next = Some(Position { column, row });
                break next.filter(|next| last.is_none() && usize::from(next.column) < self.layouts.len());
            };
            let next = Position {
                column,
                row: Some(end),
            };
            if next.to_bytes().is_some() {
                break Some(next);
            }
            // A page cannot end with an id that is too long for a position: it ends with a later one.
            behind = next.row;
        };
        let next = next.filter(|next| Some(next) != upto.as_ref());
        let next = next.and_then(|next| next.to_bytes());
        Ok(WalkPage::new(Self::items(column, rows), next))
    }

    /// Says how many bytes working on a row takes: its values as they are read, opened, sealed, bound and sent.
    pub(crate) fn weight(item: &Item) -> u64 {
        let size = item.row.as_ref().map_or(0, |row| row.size);
        ROW.saturating_add(size.saturating_mul(COPIES))
    }

    /// Makes items of rows of a column.
    pub(crate) fn items(column: u16, rows: Vec<Read>) -> Vec<Item> {
        rows.into_iter().map(|row| Item { column, row }).collect()
    }

    /// Takes the rows of a page out of their items, with their column. Those that cannot be read are reported.
    pub(crate) fn readable(
        &self,
        items: Vec<Item>,
        outcomes: &mut Vec<WalkOutcome<Item>>,
    ) -> Option<(u16, Vec<Row>)> {
        // A page has rows of one column; what is tried again is a part of a page.
        let column = items.first()?.column;
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            match item.row {
                Ok(row) => rows.push(row),
                Err(unread) => outcomes.push(self.unread(column, unread)),
            }
        }
        Some((column, rows))
    }

    /// Adds to rows what is needed to open and to seal their values, in the order of their contexts.
    pub(crate) fn bind(&self, column: u16, rows: Vec<Row>, decided: &mut Vec<Decided>) -> Vec<Bound> {
        let layout = &self.layouts[usize::from(column)];
        let mut contexts = Contexts::default();
        let mut bound = Vec::with_capacity(rows.len());
        for row in rows {
            match contexts.bind(layout, row) {
                Ok(row) => bound.push(row),
                Err(failed) => decided.push(Decided::Failed(failed.0, failed.1)),
            }
        }
        // Those of one context next to each other make batches fast.
        bound.sort_by(|a, b| a.row.context.cmp(&b.row.context));
        bound
    }

    /// Reads rows in full, as far as they are not, and says what would be done with each. Writes nothing.
    pub(crate) async fn look(
        &self,
        (column, rows): (u16, Vec<Row>),
        decider: &impl Decide,
        outcomes: &mut Vec<WalkOutcome<Item>>,
    ) {
        let (mut found, heads): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.whole);
        if !heads.is_empty() {
            found.extend(self.fetch(column, heads, outcomes).await.unwrap_or_default());
        }
        for decided in decider.decide(column, found).await {
            outcomes.push(match decided {
                Decided::Change(_) => WalkOutcome::Changed,
                Decided::Failed(row, error) => self.failed(column, row, error),
                Decided::Nothing => WalkOutcome::Overtaken,
                Decided::Verified => WalkOutcome::Unchanged,
            });
        }
    }

    /// Reads rows in full; `None` if none could be read now. Those that are gone, or cannot be read, are reported.
    async fn fetch(
        &self,
        column: u16,
        rows: Vec<Row>,
        outcomes: &mut Vec<WalkOutcome<Item>>,
    ) -> Option<Vec<Row>> {
        let layout = self.layouts.get(usize::from(column))?;
        let ids: Vec<_> = rows.iter().map(|row| &row.id).collect();
        let found = match self.rows.fetch(layout, &ids).await {
            Ok(found) => found,
            Err(error) => {
                let error = JobError::from(error);
                let failed = rows.into_iter();
                outcomes.extend(failed.map(|row| self.failed(column, row, error.clone())));
                return None;
            }
        };
        let mut there = Vec::with_capacity(found.len());
        for read in found {
            match read {
                Some(Ok(row)) => there.push(row),
                Some(Err(unread)) => outcomes.push(self.unread(column, unread)),
                // Deleted since the page was read.
                None => outcomes.push(WalkOutcome::Overtaken),
            }
        }
        Some(there)
    }

    /// Works on rows of one column: reads them, has it decided what to write, writes over what was read, and looks again
    /// at those that others changed since.
    pub(crate) async fn work(
        &self,
        (column, mut left): (u16, Vec<Row>),
        write: Write,
        decider: &impl Decide,
        outcomes: &mut Vec<WalkOutcome<Item>>,
    ) {
        let Some(layout) = self.layouts.get(usize::from(column)) else {
            return;
        };
        for _ in 0..MAX_RACES {
            if left.is_empty() {
                return;
            }
            let Some(found) = self.fetch(column, left, outcomes).await else {
                return;
            };
            let mut changes = Vec::new();
            for decided in decider.decide(column, found).await {
                match decided {
                    Decided::Change(change) => changes.push(change),
                    Decided::Failed(row, error) => outcomes.push(self.failed(column, row, error)),
                    Decided::Nothing => outcomes.push(WalkOutcome::Overtaken),
                    Decided::Verified => outcomes.push(WalkOutcome::Unchanged),
                }
            }
            left = self.write(column, layout, write, changes, outcomes).await;
        }
        let error = JobError::from(RowsError::RowBusy);
        outcomes.extend(
            left.into_iter()
                .map(|row| self.failed(column, row, error.clone())),
        );
    }

    /// Writes rows, and returns those that are not any more what they were.
    async fn write(
        &self,
        column: u16,
        layout: &Layout,
        write: Write,
        mut changes: Vec<Change>,
        outcomes: &mut Vec<WalkOutcome<Item>>,
    ) -> Vec<Row> {
        let mut missed = Vec::new();
        let mut size = BATCH;
        while !changes.is_empty() {
            let rest = changes.split_off(size.min(changes.len()));
            let batch = std::mem::replace(&mut changes, rest);
            match self.rows.write(layout, write, &batch).await {
                Ok(written) => {
                    for (change, written) in batch.into_iter().zip(written) {
                        if written {
                            outcomes.push(WalkOutcome::Changed);
                        } else {
                            missed.push(change.row.shed());
                        }
                    }
                }
                // One row that the database refuses, by a constraint or a trigger, refuses the batch: one by one.
                Err(error) if !error.is_retryable() && batch.len() > 1 => {
                    size = 1;
                    changes.splice(0..0, batch);
                }
                Err(error) => {
                    let error = JobError::from(error);
                    let failed = batch
                        .into_iter()
                        .map(|change| self.failed(column, change.row, error.clone()));
                    outcomes.extend(failed);
                }
            }
        }
        missed
    }

    /// Reports a row that could not be changed, now or ever.
    pub(crate) fn failed(&self, column: u16, row: Row, error: JobError) -> WalkOutcome<Item> {
        let layout = self.layouts.get(usize::from(column));
        let what = layout.map_or(String::new(), |layout| layout.name_of(&row.id));
        if error.is_retryable() {
            let row = Ok(row.shed());
            let item = Item { column, row };
            WalkOutcome::Retry { item, what, error }
        } else {
            WalkOutcome::Failed { what, error }
        }
    }

    /// Reports a row that cannot be read.
    fn unread(&self, column: u16, Unread { id, error }: Unread) -> WalkOutcome<Item> {
        let layout = self.layouts.get(usize::from(column));
        let what = layout.map_or(String::new(), |layout| layout.name_of(&id));
        WalkOutcome::Failed { what, error }
    }
}

/// Names a job that does this to columns.
pub(crate) fn job_name(what: &str, layouts: &[Layout]) -> String {
    JobStatus::name_for(what, layouts.iter().map(Layout::quoted_name))
}

fn position(bytes: &[u8]) -> Result<Position, JobError> {
    Position::parse(bytes).ok_or_else(|| {
        let what = "the job's position is none of rows; give the job a name of its own".to_owned();
        Error::from(StoreError::Corrupt { what }).into()
    })
}

/// The encryption contexts of a page, of which most rows have one of a few.
#[derive(Default)]
pub(crate) struct Contexts(HashMap<Vec<Option<String>>, EncryptionContext>);

impl Contexts {
    pub(crate) fn of(&mut self, layout: &Layout, row: &Row) -> Result<EncryptionContext, JobError> {
        if let Some(known) = self.0.get(&row.context) {
            return Ok(known.clone());
        }
        let context = layout.context_of(&row.context).map_err(|why| match why {
            RowContext::Null(pair) => JobError::from(RowsError::NullContext { pair }),
            RowContext::Unfit(error) => RowsError::UnfitContext(error).into(),
        })?;
        self.0.insert(row.context.clone(), context.clone());
        Ok(context)
    }

    /// Adds what is needed to open and to seal a row's value.
    fn bind(&mut self, layout: &Layout, row: Row) -> Result<Bound, Box<(Row, JobError)>> {
        let context = match self.of(layout, &row) {
            Ok(context) => context,
            Err(error) => return Err(Box::new((row, error))),
        };
        match layout.aad(&row.id) {
            Ok(aad) => Ok(Bound { row, context, aad }),
            Err(error) => Err(Box::new((row, error.into()))),
        }
    }
}

/// Opens ciphertexts, each with its row, which gets its bytes back.
pub(crate) async fn open(
    crypto: &Crypto,
    rows: Vec<(Bound, Ciphertext)>,
) -> Vec<(Bound, Result<Plaintext, Error>)> {
    let sealed: Vec<_> = rows
        .iter()
        .map(|(bound, cipher)| (&bound.context, cipher, &bound.aad))
        .collect();
    let opened = crypto.decrypt_many(sealed).await;
    let rows = rows.into_iter().zip(opened);
    rows.map(|((mut bound, cipher), opened)| {
        bound.row.cipher = Some(cipher.into_bytes());
        (bound, opened)
    })
    .collect()
}

/// Encrypts values, each for its row, and decides that they are written. `None` stands for the row's plaintext itself.
pub(crate) async fn encrypt(
    crypto: &Crypto,
    values: Vec<(Bound, Option<impl AsRef<[u8]> + Send + Sync>)>,
    decided: &mut Vec<Decided>,
) {
    let open: Vec<_> = values
        .iter()
        .map(|(bound, value)| {
            let plain = || bound.row.plain.as_ref().map_or(&[][..], Cell::as_bytes);
            let value = value.as_ref().map_or_else(plain, AsRef::as_ref);
            (&bound.context, value, &bound.aad)
        })
        .collect();
    let sealed = crypto.encrypt_many(open).await;
    for ((bound, _), sealed) in values.into_iter().zip(sealed) {
        decided.push(match sealed {
            Ok(cipher) => Decided::Change(Change::encrypted(bound.row, cipher)),
            Err(error) => Decided::Failed(bound.row, error.into()),
        });
    }
}
