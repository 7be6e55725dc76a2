//! `encx keys list` and `encx keys needs-rotation`.

use std::time::Duration;

use anyhow::Result;
use encx::keys::{DataKeyId, KeyState, KeyUsage, Maintenance};
use encx::store::{KeyQuery, KeyRecord, KeyStore};

use crate::context::{Pair, parse_pair};
use crate::exit::Exit;
use crate::output::{Output, tell};
use crate::record::{KeyView, moment_or_dash, now, parse_state, parse_usage};
use crate::session::Session;

const PAGE: u32 = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Only versions in this state; repeatable
    #[arg(long, value_name = "STATE", value_parser = parse_state, conflicts_with = "due")]
    state: Vec<KeyState>,
    /// Only versions activated longer ago than this, such as 90days
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Only versions that are due for rotation
    #[arg(long)]
    due: bool,
    /// Only versions wrapped by this KEK, optionally prefixed with its KMS
    #[arg(long, value_name = "[KMS:]KEK")]
    kek: Option<String>,
    /// List at most this many versions
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// List all versions
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Continue after this version
    #[arg(long, value_name = "ID")]
    after: Option<DataKeyId>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DueArgs {
    #[command(flatten)]
    filter: Filter,
}

/// Filters by encryption context and usage.
#[derive(Debug, clap::Args)]
pub(crate) struct Filter {
    /// Only contexts that contain this pair; repeatable
    #[arg(long = "context", short = 'c', value_name = "KEY=VALUE", value_parser = parse_pair)]
    context: Vec<Pair>,
    /// Only versions of this usage: data, index, pepper or stream
    #[arg(long, value_name = "USAGE", value_parser = parse_usage)]
    usage: Option<KeyUsage>,
}

impl Filter {
    fn query(&self) -> KeyQuery {
        let mut query = KeyQuery::new(PAGE);
        for pair in &self.context {
            query = query.context_pair(&pair.key, &pair.value);
        }
        match self.usage {
            Some(usage) => query.usage(usage),
            None => query,
        }
    }
}

/// The source of the pages.
enum Source<'s> {
    All(&'s dyn KeyStore),
    Due(&'s Maintenance),
}

/// A page of either source.
struct Page {
    records: Vec<KeyRecord>,
    /// Rows left out because it is unknown whether they are due.
    unreadable: usize,
    next: Option<DataKeyId>,
}

impl Source<'_> {
    async fn page(&self, query: KeyQuery) -> Result<Page> {
        Ok(match self {
            Self::All(store) => {
                let page = store.page(&query).await?;
                Page {
                    records: page.records,
                    unreadable: 0,
                    next: page.next,
                }
            }
            Self::Due(maintenance) => {
                let page = maintenance.due_page(query).await?;
                Page {
                    records: page.records,
                    unreadable: page.unreadable.len(),
                    next: page.next,
                }
            }
        })
    }
}

/// What was listed.
#[derive(Default)]
struct Written {
    versions: u64,
    unreadable: u64,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let mut query = args
        .state
        .iter()
        .copied()
        .fold(args.filter.query(), KeyQuery::state);
    if let Some(kek) = &args.kek {
        let kek = session.lasting(session.kek(kek).await?).await?;
        query = query.wrapped_by(kek.kms, kek.kek);
    }
    if let Some(age) = args.older_than {
        query = query.activated_before(now().minus(age));
    }
    if let Some(after) = args.after {
        query = query.after(after);
    }
    let limit = if args.all { u64::MAX } else { args.limit };
    let store = session.store().await?;
    let found = if args.due {
        let maintenance = session.settings.maintenance(session.manager(None).await?);
        let source = Source::Due(&maintenance);
        write(session.output, &source, &query, limit, Some(&maintenance)).await?
    } else {
        let (maintenance, source) = (session.maintenance().await, Source::All(&*store));
        write(session.output, &source, &query, limit, maintenance.as_ref()).await?
    };
    if found.unreadable > 0 {
        tell_unreadable(found.unreadable);
        return Ok(Exit::Finding);
    }
    if found.versions == 0 {
        tell("there is no such version");
    }
    Ok(Exit::Done)
}

fn tell_unreadable(rows: u64) {
    tell(&format!(
        "{rows} rows of active versions were edited and do not say what they are for: restore them from a backup"
    ));
}

pub(crate) async fn needs_rotation(session: &Session, args: DueArgs) -> Result<Exit> {
    let maintenance = session.settings.maintenance(session.manager(None).await?);
    let source = Source::Due(&maintenance);
    let query = args.filter.query();
    let found = write(session.output, &source, &query, u64::MAX, Some(&maintenance)).await?;
    let found = found.versions;
    // A row without a readable usage may be due, so a cron job must see it.
    let unreadable = maintenance.due(0).await?.unreadable;
    if unreadable > 0 {
        tell_unreadable(unreadable);
    }
    if found > 0 {
        tell(&format!("{found} versions are due: run `encx maintain --once`"));
    }
    if found > 0 || unreadable > 0 {
        return Ok(Exit::Finding);
    }
    tell("nothing is due");
    Ok(Exit::Done)
}

/// Writes page by page, so memory holds one.
async fn write(
    output: Output,
    source: &Source<'_>,
    query: &KeyQuery,
    limit: u64,
    maintenance: Option<&Maintenance>,
) -> Result<Written> {
    let (mut written, mut query, mut rest) = (Written::default(), query.clone(), limit);
    let mut is_first = true;
    loop {
        query.limit = u32::try_from(rest.min(u64::from(PAGE))).unwrap_or(PAGE);
        let page = source.page(query.clone()).await?;
        let views: Vec<_> = page
            .records
            .iter()
            .map(|record| {
                KeyView::new(
                    record,
                    maintenance.and_then(|maintenance| maintenance.due_at(record)),
                )
            })
            .collect();
        if is_first || !views.is_empty() {
            write_page(output, &views)?;
        }
        is_first = false;
        let found = u64::try_from(views.len()).unwrap_or(u64::MAX);
        written.versions += found;
        written.unreadable += u64::try_from(page.unreadable).unwrap_or(u64::MAX);
        rest -= found.min(rest);
        match page.next {
            None => return Ok(written),
            Some(next) if rest == 0 => {
                tell(&format!("there are more: go on with --after {next}"));
                return Ok(written);
            }
            Some(next) => query = query.after(next),
        }
    }
}

fn write_page(output: Output, views: &[KeyView]) -> Result<()> {
    let header = [
        "ID",
        "USAGE",
        "VERSION",
        "STATE",
        "CONTEXT",
        "KEK",
        "ACTIVE SINCE",
        "DUE",
    ];
    output.list(header, views, |view| {
        [
            view.id.clone(),
            view.usage.to_owned(),
            view.version.to_string(),
            view.state.to_owned(),
            view.context(),
            view.keks(),
            moment_or_dash(view.activated_at.as_ref()),
            moment_or_dash(view.due_at.as_ref()),
        ]
    })
}
