//! `encx verify`: opens rows of the declared columns, and says which do not open and why.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use encx::Crypto;
use encx::jobs::JobEnd;
use encx::store::JobFaults;
use encx_config::DeclaredColumn;
use encx_tables::Rows;
use serde::Serialize;

use crate::columns::{ColumnArgs, name_of, why_not_walked};
use crate::exit::Exit;
use crate::output::{Output, columns, tell};
use crate::progress::{Work, exit_of, failed_by_servers, follow_work};
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    columns: ColumnArgs,
    /// Open so many rows of each column, chosen at random
    #[arg(long, value_name = "ROWS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sample: u32,
    /// Open every row. Several processes share the work, and after Ctrl-C the next run goes on
    #[arg(long, conflicts_with = "sample")]
    all: bool,
    /// With --all, at most so many rows a second
    #[arg(long, value_name = "ROWS", requires = "all", value_parser = clap::value_parser!(u32).range(1..))]
    throttle: Option<u32>,
    /// Name the first rows of each kind of fault, so many of them
    #[arg(long, value_name = "ROWS", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=20))]
    show: u8,
}

/// What was found in a column.
#[derive(Debug, Serialize)]
struct View {
    table: String,
    column: String,
    looked_at: u64,
    ok: u64,
    faults: BTreeMap<String, Fault>,
    /// Whether all that was asked for was looked at.
    complete: bool,
    /// Why it was not looked at, or not to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip)]
    exit: Exit,
    /// Why rows do not open, by their names.
    #[serde(skip)]
    errors: HashMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Fault {
    rows: u64,
    examples: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let declared = args.columns.of(&session.settings)?;
    session
        .with_rows(async |rows, crypto| verify(session.output, &args, &declared, rows, crypto).await)
        .await
}

async fn verify(
    output: Output,
    args: &Args,
    declared: &[&DeclaredColumn],
    rows: &Rows,
    crypto: &Crypto,
) -> Result<Exit> {
    let mut views: Vec<View> = Vec::with_capacity(declared.len());
    for declared in declared {
        let mut view = match why_not_walked(declared) {
            Some(why) => left_out(declared, why, args.columns.are_named()),
            None if args.all => all(output, args, declared, rows, crypto).await?,
            None => tokio::select! {
                sampled = sample(args.sample, declared, rows, crypto) => sampled?,
                _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
            },
        };
        for fault in view.faults.values_mut() {
            fault.examples.truncate(args.show.into());
        }
        let ended = matches!(view.exit, Exit::Interrupted);
        views.push(view);
        if ended {
            break;
        }
    }
    write(output, &views)?;
    Ok(views.iter().fold(Exit::Done, |exit, view| exit.worse(view.exit)))
}

fn left_out(declared: &DeclaredColumn, why: String, is_named: bool) -> View {
    let mut view = View::new(declared, &JobFaults::default());
    view.why = Some(why);
    // No job can open this column, so a daily check must not fail because of it. If it was named, say so.
    view.exit = if is_named { Exit::Finding } else { Exit::Done };
    view
}

async fn sample(limit: u32, declared: &DeclaredColumn, rows: &Rows, crypto: &Crypto) -> Result<View> {
    let column = declared.column.clone();
    let sampled = rows
        .verify_sample(crypto, [column], limit)
        .await?
        .into_iter()
        .next();
    let Some(sampled) = sampled else {
        return Ok(View::new(declared, &JobFaults::default()));
    };
    let mut view = View::new(declared, &sampled.faults);
    (view.looked_at, view.ok, view.complete) = (sampled.looked_at, sampled.ok, true);
    view.exit = match (sampled.faults.is_empty(), failed_by_servers(&sampled.faults)) {
        (true, _) => Exit::Done,
        (false, true) => Exit::Unreachable,
        (false, false) => Exit::Finding,
    };
    let failures = sampled.failures.into_iter();
    view.errors = failures.map(|of| (of.what, of.error.to_string())).collect();
    Ok(view)
}

async fn all(
    output: Output,
    args: &Args,
    declared: &DeclaredColumn,
    rows: &Rows,
    crypto: &Crypto,
) -> Result<View> {
    let work = Work {
        what: "opening rows".to_owned(),
        column: Some(name_of(declared)),
        total: Some(rows.estimated_rows(&declared.column).await?),
        tells: false,
    };
    let mut job = rows.verify(crypto, [declared.column.clone()])?;
    if let Some(throttle) = args.throttle {
        job = job.throttle(throttle);
    }
    let report = follow_work(output, &work, job.start()).await?;
    let mut view = View::new(declared, &report.faults);
    (view.looked_at, view.ok) = (report.run.unchanged + report.run.failed, report.run.unchanged);
    view.complete = matches!(report.ended_by, JobEnd::Finished);
    view.exit = exit_of(&report);
    view.why = match &report.ended_by {
        JobEnd::Finished => None,
        JobEnd::GaveUp(error) => Some(error.to_string()),
        JobEnd::Stopped => Some("stopped: the next `encx verify --all` goes on from here".to_owned()),
        _ => Some("another process has begun it again: see what that one finds".to_owned()),
    };
    let failures = report.failures.into_iter();
    view.errors = failures.map(|of| (of.what, of.error.to_string())).collect();
    Ok(view)
}

impl View {
    fn new(declared: &DeclaredColumn, faults: &JobFaults) -> Self {
        let faults = faults.iter().map(|(kind, fault)| {
            let (rows, examples) = (fault.items, fault.examples.clone());
            (kind.to_owned(), Fault { rows, examples })
        });
        Self {
            table: declared.column.sql_table.clone(),
            column: declared.column.sql_column.clone(),
            looked_at: 0,
            ok: 0,
            faults: faults.collect(),
            complete: false,
            why: None,
            exit: Exit::Done,
            errors: HashMap::new(),
        }
    }
}

fn write(output: Output, views: &[View]) -> Result<()> {
    if !views.is_empty() {
        output.list(["COLUMN", "ROWS", "OK", "FAULTS"], views, |view| {
            let faults: Vec<_> = view
                .faults
                .iter()
                .map(|(kind, fault)| format!("{} {kind}", fault.rows))
                .collect();
            let faults = if faults.is_empty() {
                "-".to_owned()
            } else {
                faults.join(", ")
            };
            let name = format!("{}.{}", view.table, view.column);
            [name, view.looked_at.to_string(), view.ok.to_string(), faults]
        })?;
    }
    for view in views {
        if let Some(why) = &view.why {
            tell(&format!(
                "{}.{} was not looked at to its end: {why}",
                view.table, view.column
            ));
        }
    }
    if output.is_json() {
        return Ok(());
    }
    let mut named = Vec::new();
    for view in views {
        for (kind, fault) in &view.faults {
            named.extend(fault.examples.iter().map(|what| {
                // What another process found, it alone can explain.
                let why = view.errors.get(what).cloned().unwrap_or_else(|| "-".to_owned());
                [kind.clone(), what.clone(), why]
            }));
        }
    }
    if named.is_empty() {
        return Ok(());
    }
    output.text(&format!("\n{}", columns(Some(["FAULT", "ROW", "WHY"]), named)))
}
