//! What all walks over rows share: pages of ids, what became of rows, and writes that compare before they swap.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use encx::{Aad, Crypto, EncryptionContext, Error, JobError, JobStatus, StoreError, WalkOutcome, WalkPage};

use super::cell::Position;
use super::layout::{Layout, Row, RowContext};
use super::sql::{Filter, Write};
use super::{Change, Rows, RowsError};

/// How often a row that somebody else changes or holds is looked at again at once.
const MAX_RACES: usize = 3;

/// How many rows are written at once: for so long nobody else writes to a database of SQLite.
const BATCH: usize = 100;

/// A row of one of the walk's columns.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct Item {
    pub(super) column: u16,
    pub(super) row: Row,
}

/// The columns of a walk, one after the other.
pub(super) struct Walked {
    pub(super) rows: Rows,
    pub(super) layouts: Vec<Layout>,
    filter: Filter,
    contracts: bool,
    /// Whether the tables were found to be as they are described.
    checked: AtomicBool,
}

/// A row that can be worked on: it has all that is needed to open and to seal its value.
pub(super) struct Bound {
    pub(super) row: Row,
    pub(super) context: EncryptionContext,
    pub(super) aad: Aad,
}

/// What is to be done with a row that was read.
pub(super) enum Decided {
    Change(Change),
    Failed(Row, JobError),
    /// Nothing is left to do: somebody else changed the row meanwhile.
    Nothing,
    /// It is as it should be.
    Verified,
}

/// Decides what to write.
#[async_trait]
pub(super) trait Decide: Sync {
    async fn decide(&self, column: u16, rows: Vec<Row>) -> Vec<Decided>;
}

impl Walked {
    pub(super) fn new(rows: Rows, layouts: Vec<Layout>, filter: Filter, contracts: bool) -> Self {
        let checked = AtomicBool::new(false);
        Self {
            rows,
            layouts,
            filter,
            contracts,
            checked,
        }
    }

    /// Names a job that does this to the walk's columns. Each name is quoted, so that no two walks are called the same.
    pub(super) fn job_name(&self, what: &str) -> String {
        let columns = self.layouts.iter();
        JobStatus::name_for(what, columns.map(Layout::quoted_name))
    }

    /// Describes the walk for a job's plan.
    pub(super) fn plan(&self, what: &str) -> String {
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

    pub(super) async fn read(
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
        let between = (after.row.as_ref(), last);
        let rows = self.rows.page(layout, self.filter, between, limit).await?;
        let full = u32::try_from(rows.len()).is_ok_and(|read| read >= limit);
        let next = match rows.last().filter(|_| full) {
            Some(row) => Some(Position {
                column: after.column,
                row: Some(row.id.clone()),
            }),
            None => Some(Position {
                column: after.column + 1,
                row: None,
            })
            .filter(|next| last.is_none() && usize::from(next.column) < self.layouts.len()),
        };
        let next = next.filter(|next| Some(next) != upto.as_ref());
        let column = after.column;
        let items = rows.into_iter().map(|row| Item { column, row }).collect();
        let next = next.map(|next| next.to_bytes()).transpose()?;
        Ok(WalkPage::new(items, next))
    }

    /// Works on rows of one column: reads them, has it decided what to write, writes over what was read, and looks again
    /// at those that others changed meanwhile.
    pub(super) async fn work(
        &self,
        items: Vec<Item>,
        write: Write,
        decider: &impl Decide,
        outcomes: &mut Vec<WalkOutcome<Item>>,
    ) {
        // A page has rows of one column; what is tried again is a part of a page.
        let Some(column) = items.first().map(|item| item.column) else {
            return;
        };
        let Some(layout) = self.layouts.get(usize::from(column)) else {
            return;
        };
        let mut left: Vec<_> = items.into_iter().map(|item| item.row).collect();
        for _ in 0..MAX_RACES {
            let ids: Vec<_> = left.iter().map(|row| &row.id).collect();
            if ids.is_empty() {
                return;
            }
            let found = match self.rows.fetch(layout, &ids).await {
                Ok(found) => found,
                Err(error) => {
                    let error = JobError::from(error);
                    outcomes.extend(
                        left.into_iter()
                            .map(|row| self.failed(column, row, error.clone())),
                    );
                    return;
                }
            };
            let there = found.len();
            let found: Vec<_> = found.into_iter().flatten().collect();
            // Deleted meanwhile.
            outcomes.extend((found.len()..there).map(|_| WalkOutcome::Overtaken));
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
                            missed.push(change.row);
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
    pub(super) fn failed(&self, column: u16, row: Row, error: JobError) -> WalkOutcome<Item> {
        let layout = self.layouts.get(usize::from(column));
        let what = layout.map_or(String::new(), |layout| layout.name_of(&row.id));
        if error.is_retryable() {
            let item = Item { column, row };
            WalkOutcome::Retry { item, what, error }
        } else {
            WalkOutcome::Failed { what, error }
        }
    }
}

fn position(bytes: &[u8]) -> Result<Position, JobError> {
    Position::parse(bytes).ok_or_else(|| {
        let what = "the job's position is none of rows; give the job a name of its own".to_owned();
        Error::from(StoreError::Corrupt { what }).into()
    })
}

/// The encryption contexts of a page, of which most rows have one of a few.
#[derive(Default)]
pub(super) struct Contexts(HashMap<Vec<Option<String>>, EncryptionContext>);

impl Contexts {
    pub(super) fn of(&mut self, layout: &Layout, row: &Row) -> Result<EncryptionContext, JobError> {
        if let Some(known) = self.0.get(&row.context) {
            return Ok(known.clone());
        }
        let context = layout.context_of(&row.context).map_err(|why| match why {
            RowContext::Null(pair) => RowsError::NullContext { pair }.into(),
            RowContext::Unfit(error) => JobError::from(Error::from(error)),
        })?;
        self.0.insert(row.context.clone(), context.clone());
        Ok(context)
    }

    /// Adds what is needed to open and to seal a row's value.
    pub(super) fn bind(&mut self, layout: &Layout, row: Row) -> Result<Bound, Box<(Row, JobError)>> {
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

/// Sorts rows so that those of one context stand next to each other, which makes batches fast.
pub(super) fn by_context(rows: &mut [Bound]) {
    rows.sort_by(|a, b| a.row.context.cmp(&b.row.context));
}

/// Encrypts values, each for its row, and decides that they are written.
pub(super) async fn encrypt(
    crypto: &Crypto,
    values: Vec<(Bound, impl AsRef<[u8]> + Send + Sync)>,
    decided: &mut Vec<Decided>,
) {
    let open: Vec<_> = values
        .iter()
        .map(|(bound, value)| (&bound.context, value, &bound.aad))
        .collect();
    let sealed = crypto.encrypt_many(open).await;
    for ((bound, _), sealed) in values.into_iter().zip(sealed) {
        decided.push(match sealed {
            Ok(cipher) => Decided::Change(Change::encrypted(bound.row, cipher)),
            Err(error) => Decided::Failed(bound.row, error.into()),
        });
    }
}
