//! Declared columns on the command line: `--column users.ssn`.

use anyhow::{Result, bail};
use encx::jobs::{Job, Walk};
use encx::record::EncryptedColumn;
use encx::store::JobStatus;
use encx_config::{DeclaredColumn, Settings};

/// The option that chooses among declared columns.
#[derive(Debug, clap::Args)]
pub(crate) struct ColumnArgs {
    /// Only this column, by its names in SQL; may be given several times [default: all that encx.toml declares]
    #[arg(long = "column", value_name = "TABLE.COLUMN")]
    names: Vec<String>,
}

impl ColumnArgs {
    /// Finds the columns that are asked for, in the order of the file.
    pub(crate) fn of<'s>(&self, settings: &'s Settings) -> Result<Vec<&'s DeclaredColumn>> {
        let declared = settings.columns();
        if declared.is_empty() {
            bail!(
                "encx.toml declares no encrypted columns: add them as [[column]]; `encx columns check` finds columns of ciphertexts"
            );
        }
        let known = |name: &&String| declared.iter().any(|column| name_of(column) == **name);
        if let Some(unknown) = self.names.iter().find(|name| !known(name)) {
            let names: Vec<_> = declared.iter().map(name_of).collect();
            bail!(
                "encx.toml declares no column `{unknown}`: it has {}",
                names.join(", ")
            );
        }
        let chosen = declared.iter();
        Ok(chosen
            .filter(|column| self.names.is_empty() || self.names.contains(&name_of(column)))
            .collect())
    }

    /// Tells whether columns were asked for by name.
    pub(crate) fn are_named(&self) -> bool {
        !self.names.is_empty()
    }
}

/// The options of a walk over rows that changes them.
#[derive(Debug, clap::Args)]
pub(crate) struct WalkArgs {
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    /// At most so many rows a second
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..))]
    throttle: Option<u32>,
    /// Count what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl WalkArgs {
    /// Limits a job as asked.
    pub(crate) fn paced<W: Walk>(&self, mut job: Job<W>) -> Job<W> {
        if let Some(throttle) = self.throttle {
            job = job.throttle(throttle);
        }
        if self.dry_run { job.dry_run() } else { job }
    }
}

/// Names a column as it is asked for.
pub(crate) fn name_of(declared: &DeclaredColumn) -> String {
    let column = &declared.column;
    format!("{}.{}", column.sql_table, column.sql_column)
}

/// Says why no job can open the rows of a column; `None` if one can.
pub(crate) fn why_not_walked(declared: &DeclaredColumn) -> Option<String> {
    let bound = &declared.column.bound;
    (!bound.is_empty()).then(|| {
        format!(
            "its values are bound to {}, whose types only the service knows",
            bound.join(", ")
        )
    })
}

/// Names the job of `encx rotate --everything` that does something to a column.
pub(crate) fn rotation_job_name(what: &str, column: &EncryptedColumn) -> String {
    let of = [&column.sql_table, &column.sql_column];
    JobStatus::name_for(&format!("encx/rotate-everything/{what}"), of)
}
