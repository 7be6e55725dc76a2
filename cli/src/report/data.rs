//! The report as plain data, as `--format json` writes it.

use serde::Serialize;

use super::told::Told;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Identifies the JSON's format to readers.
    pub(crate) format: &'static str,
    pub(crate) generated_at: String,
    pub(crate) program: String,
    /// Results by topic.
    pub(crate) summary: Vec<Check>,
    #[serde(flatten)]
    pub(crate) facts: Facts,
    pub(crate) controls: Vec<Control>,
}

/// Facts, before they are judged.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    pub(crate) settings: SettingsFacts,
    pub(crate) keks: Vec<KekFacts>,
    pub(crate) versions: Told<VersionFacts>,
    pub(crate) ages: Told<AgeFacts>,
    pub(crate) due: Told<DueFacts>,
    pub(crate) audit: Told<AuditFacts>,
    pub(crate) days: Told<Vec<DayFacts>>,
    pub(crate) cost: Told<CostFacts>,
    pub(crate) columns: Vec<ColumnFacts>,
    pub(crate) shreddings: Told<ShredFacts>,
    pub(crate) receipts: Told<Vec<ReceiptFacts>>,
    pub(crate) processes: Told<Vec<ProcessFacts>>,
}

/// A topic of the summary.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) topic: &'static str,
    pub(crate) level: Level,
    pub(crate) says: String,
    /// The page's section with details.
    pub(crate) section: &'static str,
}

/// The level of a result, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    InOrder,
    NotKnown,
    Attention,
    Finding,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InOrder => "in order",
            Self::NotKnown => "not known",
            Self::Attention => "attention",
            Self::Finding => "finding",
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct SettingsFacts {
    pub(crate) kms: Vec<KmsFacts>,
    /// The kind of database, such as `postgres`.
    pub(crate) key_store: String,
    /// Settings without URLs and file names.
    pub(crate) values: Vec<SettingFacts>,
}

#[derive(Debug, Serialize)]
pub(crate) struct KmsFacts {
    pub(crate) name: String,
    pub(crate) provider: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct SettingFacts {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) is_default: bool,
}

/// A KEK as the rule, the KMS and the key store report it.
#[derive(Debug, Serialize)]
pub(crate) struct KekFacts {
    pub(crate) kms: String,
    pub(crate) provider: Option<&'static str>,
    pub(crate) kek: String,
    /// The KEK rule's name for it, if different.
    pub(crate) alias: Option<String>,
    pub(crate) is_in_rule: bool,
    pub(crate) state: &'static str,
    pub(crate) error: Option<String>,
    pub(crate) rotation: Option<bool>,
    pub(crate) rotation_days: Option<u32>,
    pub(crate) last_rotation: Option<String>,
    pub(crate) next_rotation: Option<String>,
    pub(crate) deletion: Option<String>,
    /// Number of versions that it wraps, and how many of them no other KEK wraps.
    pub(crate) versions: Told<u64>,
    pub(crate) sole: Told<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct VersionFacts {
    pub(crate) counts: Vec<VersionCount>,
    /// Rows whose usage or state encx does not know.
    pub(crate) unreadable: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct VersionCount {
    pub(crate) usage: &'static str,
    pub(crate) state: &'static str,
    pub(crate) versions: u64,
    pub(crate) oldest_activated_at: Option<String>,
}

/// Ages of the versions in use.
#[derive(Debug, Serialize)]
pub(crate) struct AgeFacts {
    /// Active versions by age.
    pub(crate) active: Vec<AgeBucket>,
    pub(crate) oldest_active_days: Option<u64>,
    /// Active versions that have encrypted for longer than NIST's suggested maximum.
    pub(crate) active_over_2_years: u64,
    /// Versions that have only decrypted for longer than NIST's suggested maximum.
    pub(crate) deactivated_over_3_years: u64,
    /// Versions without a wrap, which decrypt nothing.
    pub(crate) without_wraps: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct AgeBucket {
    pub(crate) age: &'static str,
    pub(crate) versions: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct DueFacts {
    pub(crate) versions: u64,
    pub(crate) unreadable: u64,
    pub(crate) first: Vec<DueVersionFacts>,
}

#[derive(Debug, Serialize)]
pub(crate) struct DueVersionFacts {
    pub(crate) id: String,
    pub(crate) usage: &'static str,
    pub(crate) context: String,
    pub(crate) active_since: String,
    pub(crate) period_days: u64,
}

/// Facts from the audit log.
#[derive(Debug, Default, Serialize)]
pub(crate) struct AuditFacts {
    pub(crate) entries: u64,
    /// Edited entries, with values that encx does not write.
    pub(crate) unreadable: u64,
    pub(crate) first_at: Option<String>,
    pub(crate) last_at: Option<String>,
    /// State changes.
    pub(crate) transitions: u64,
    /// Entries that name a database user.
    pub(crate) with_user: u64,
    /// The last 24 months, oldest first.
    pub(crate) months: Vec<MonthFacts>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct MonthFacts {
    pub(crate) month: String,
    /// Versions that replaced another one.
    pub(crate) rotations: u64,
    pub(crate) first_versions: u64,
    pub(crate) destroyed: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct DayFacts {
    pub(crate) day: String,
    pub(crate) encrypts: u64,
    pub(crate) decrypts: u64,
    pub(crate) refusals: u64,
    pub(crate) kms_calls: u64,
    pub(crate) kms_failures: u64,
    pub(crate) calls_usd: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct CostFacts {
    pub(crate) usd_per_month: f64,
    pub(crate) calls_usd: f64,
    pub(crate) keks_usd: f64,
    pub(crate) days: u64,
}

/// A declared column.
#[derive(Debug, Serialize)]
pub(crate) struct ColumnFacts {
    pub(crate) table: String,
    pub(crate) column: String,
    /// Rows by the state of their key.
    pub(crate) census: Told<Vec<RowsFacts>>,
    pub(crate) verified: Told<VerifiedFacts>,
}

impl ColumnFacts {
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.table, self.column)
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct RowsFacts {
    /// A key state, `missing` if the key store does not have the key, or `no key` for values that name none.
    pub(crate) state: &'static str,
    pub(crate) rows: u64,
}

/// The last time a job decrypted all rows of a column.
#[derive(Debug, Serialize)]
pub(crate) struct VerifiedFacts {
    pub(crate) is_complete: bool,
    pub(crate) at: Option<String>,
    pub(crate) opened: u64,
    pub(crate) failed: u64,
    pub(crate) faults: Vec<FaultFacts>,
}

#[derive(Debug, Serialize)]
pub(crate) struct FaultFacts {
    pub(crate) kind: String,
    pub(crate) rows: u64,
    pub(crate) examples: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct ShredFacts {
    /// Contexts whose versions are all destroyed, latest first.
    pub(crate) contexts: Vec<ShreddedContext>,
    /// Whether there are more destroyed keys than were read.
    pub(crate) is_cut_short: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct ShreddedContext {
    pub(crate) context: String,
    pub(crate) versions: u64,
    pub(crate) destroyed_at: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) by: Option<String>,
}

/// A shredding receipt.
#[derive(Debug, Serialize)]
pub(crate) struct ReceiptFacts {
    pub(crate) number: u64,
    pub(crate) context: String,
    pub(crate) shredded_at: String,
    pub(crate) versions: u64,
    /// Whether no process can still read with these keys.
    pub(crate) is_complete: bool,
    /// Listed versions that the key store has in another state, as after a restore.
    pub(crate) not_destroyed: u64,
    pub(crate) reason: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct ProcessFacts {
    pub(crate) name: String,
    pub(crate) started_at: String,
    pub(crate) seen_at: String,
    /// Whether it sent no heartbeat for five minutes.
    pub(crate) is_silent: bool,
}

/// A control of a standard, and this system's evidence.
#[derive(Debug, Serialize)]
pub(crate) struct Control {
    pub(crate) standard: &'static str,
    pub(crate) control: &'static str,
    /// The requirement, in encx's own words.
    pub(crate) asks: &'static str,
    pub(crate) standing: Standing,
    pub(crate) evidence: Vec<String>,
    /// What encx does not show, and what would show it.
    pub(crate) elsewhere: &'static str,
}

/// How much of a control encx shows, least first. Never states that the control is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    Finding,
    NotShown,
    Partly,
    Shown,
}

impl Standing {
    pub(crate) const ALL: [Self; 4] = [Self::Shown, Self::Partly, Self::NotShown, Self::Finding];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Finding => "finding",
            Self::NotShown => "not shown by encx",
            Self::Partly => "partly shown",
            Self::Shown => "shown",
        }
    }
}
