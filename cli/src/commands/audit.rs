//! `encx audit`: lists and exports the audit log.

use std::time::SystemTime;

use anyhow::{Result, anyhow};
use encx::keys::{DataKeyId, KeyState};
use encx::store::{AuditEntry, AuditLog, AuditQuery, KeyStore, Timestamp};
use serde::Serialize;

use crate::exit::Exit;
use crate::output::{Format, Output, tell};
use crate::record::{moment, now};
use crate::session::Session;

const PAGE: u32 = 1000;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List entries, oldest first
    List(ListArgs),
    /// Write all entries as JSON, one per line
    Export(Filter),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// List at most this many entries
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Filter {
    /// Only entries of this key version
    #[arg(long, value_name = "ID")]
    key: Option<DataKeyId>,
    /// Only entries since this time, such as 2026-11-30T00:00:00Z, or this long ago, such as 7days
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    since: Option<Timestamp>,
    /// Only entries before this time
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<Timestamp>,
    /// Continue after this entry
    #[arg(long, value_name = "NUMBER")]
    after: Option<i64>,
}

#[derive(Debug, Serialize)]
struct View {
    number: i64,
    at: String,
    key: String,
    what: &'static str,
    from: Option<&'static str>,
    to: &'static str,
    reason: Option<String>,
    application: Option<String>,
    db_user: Option<String>,
}

impl View {
    fn new(entry: &AuditEntry) -> Self {
        Self {
            number: entry.number,
            at: moment(entry.at),
            key: entry.key.to_string(),
            what: entry.what.name(),
            from: entry.from.map(KeyState::name),
            to: entry.to.name(),
            reason: entry.reason.clone(),
            application: entry.application.clone(),
            db_user: entry.db_user.clone(),
        }
    }
}

impl View {
    /// Names the writer: database user and application name.
    fn by(&self) -> String {
        let names: Vec<_> = self
            .db_user
            .iter()
            .chain(&self.application)
            .map(String::as_str)
            .collect();
        match names[..] {
            [] => "-".to_owned(),
            _ => names.join("/"),
        }
    }
}

pub(crate) async fn run(session: &Session, command: Command) -> Result<Exit> {
    let store = session.store().await?;
    let log = store
        .audit()
        .ok_or_else(|| anyhow!("this key store keeps no audit log"))?;
    let is_whole = match command {
        Command::List(args) => write(session.output, log, &args.filter, args.limit).await?,
        Command::Export(filter) => write(Output(Format::Json), log, &filter, u64::MAX).await?,
    };
    Ok(if is_whole { Exit::Done } else { Exit::Finding })
}

/// Writes page by page, so memory holds one. Returns `false` if edited entries were left out.
async fn write(output: Output, log: &dyn AuditLog, filter: &Filter, limit: u64) -> Result<bool> {
    let (mut query, mut rest, mut is_first) = (filter.query(), limit, true);
    let mut is_whole = true;
    loop {
        query.limit = u32::try_from(rest.min(u64::from(PAGE))).unwrap_or(PAGE);
        let page = log.audit_page(&query).await?;
        for number in &page.unreadable {
            tell(&format!(
                "entry {number} was edited and says nothing that encx writes: it is left out"
            ));
            is_whole = false;
        }
        let views: Vec<_> = page.entries.iter().map(View::new).collect();
        if is_first || !views.is_empty() {
            write_page(output, &views)?;
        }
        is_first = false;
        rest -= u64::try_from(views.len()).unwrap_or(rest).min(rest);
        match page.next {
            None => return Ok(is_whole),
            Some(next) if rest == 0 => {
                tell(&format!("there are more: go on with --after {next}"));
                return Ok(is_whole);
            }
            Some(next) => query = query.after(next),
        }
    }
}

fn write_page(output: Output, views: &[View]) -> Result<()> {
    let header = ["NUMBER", "AT", "KEY", "WHAT", "FROM", "TO", "BY", "REASON"];
    output.list(header, views, |view| {
        let dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
        [
            view.number.to_string(),
            view.at.clone(),
            view.key.clone(),
            view.what.to_owned(),
            dash(view.from),
            view.to.to_owned(),
            view.by(),
            dash(view.reason.as_deref()),
        ]
    })
}

impl Filter {
    fn query(&self) -> AuditQuery {
        let mut query = AuditQuery::new(PAGE);
        query.key = self.key;
        query.since = self.since;
        query.until = self.until;
        query.after = self.after;
        query
    }
}

/// Parses a date, an RFC 3339 time, or how long ago it was.
fn parse_moment(text: &str) -> Result<Timestamp, String> {
    let advice = "write a date, a moment such as 2026-11-30T00:00:00Z, or how long ago it was, such as 7days";
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(now().minus(ago));
    }
    let is_date = text.len() == 10;
    let text = if is_date {
        format!("{text}T00:00:00Z")
    } else {
        text.to_owned()
    };
    let at = humantime::parse_rfc3339_weak(&text).map_err(|_| advice.to_owned())?;
    let since_1970 = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| advice.to_owned())?;
    let micros = i64::try_from(since_1970.as_micros()).map_err(|_| advice.to_owned())?;
    Ok(Timestamp::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date_or_a_time_ago() {
        let at = parse_moment("2023-11-14T22:13:20Z").unwrap();
        assert_eq!(at, Timestamp::from_micros(1_700_000_000_000_000));
        assert_eq!(
            parse_moment("2023-11-14").unwrap(),
            parse_moment("2023-11-14T00:00:00Z").unwrap()
        );
        assert!(parse_moment("7days").unwrap() > at);
        for wrong in ["", "yesterday", "1969-01-01T00:00:00Z"] {
            assert!(parse_moment(wrong).is_err(), "{wrong}");
        }
    }
}
