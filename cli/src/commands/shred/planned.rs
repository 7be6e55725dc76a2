//! A plan file: what a shredding would destroy, at the time of the plan.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use encx::EncryptionContext;
use encx::keys::DataKeyId;
use encx::store::{KeyRecord, KeyStore};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::receipts::{Counted, Kek};

use super::state::{contexts_with, keks_of, survives, versions_of};

const FORMAT: &str = "encx/shred-plan/1";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    pub(super) format: String,
    pub(super) made_at: String,
    /// The given pairs, if contexts with further pairs are included.
    pub(super) every: Option<BTreeMap<String, String>>,
    pub(super) contexts: Vec<PlannedContext>,
    pub(super) survives: Vec<String>,
    /// SHA-256 over the contexts, and the ids, states and revisions of their versions.
    pub(super) digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlannedContext {
    pub(super) context: BTreeMap<String, String>,
    pub(super) versions: Vec<PlannedVersion>,
    pub(super) keks: Vec<Kek>,
    /// `None` if no column is declared.
    pub(super) rows: Option<Vec<Counted>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlannedVersion {
    pub(super) id: String,
    pub(super) usage: String,
    pub(super) version: u32,
    pub(super) state: String,
    pub(super) revision: i64,
}

impl Plan {
    pub(super) fn new(
        made_at: String,
        every: Option<BTreeMap<String, String>>,
        contexts: Vec<PlannedContext>,
    ) -> Result<Self> {
        let mut keks: Vec<_> = contexts.iter().flat_map(|of| of.keks.clone()).collect();
        keks.sort();
        keks.dedup();
        let counted = contexts.iter().all(|of| of.rows.is_some());
        Ok(Self {
            format: FORMAT.to_owned(),
            made_at,
            every,
            survives: survives(&keks, counted),
            digest: digest_of(&contexts)?,
            contexts,
        })
    }

    /// Parses a plan file.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let plan: Self = serde_json::from_slice(text).context("this is no plan of `encx shred plan`")?;
        if plan.format != FORMAT {
            bail!(
                "the plan's format is {:?}, and this program knows {FORMAT:?}",
                plan.format
            );
        }
        if plan.digest != digest_of(&plan.contexts)? {
            bail!("the plan was edited: make another with `encx shred plan`");
        }
        Ok(plan)
    }

    /// Finds a context that contains the plan's pairs and has a key, but is not in the plan.
    pub(super) async fn left_out(&self, store: &dyn KeyStore) -> Result<Option<EncryptionContext>> {
        let Some(pairs) = &self.every else {
            return Ok(None);
        };
        for context in contexts_with(store, pairs).await? {
            let is_planned = self.contexts.iter().any(|of| of.context == context.to_map());
            if !is_planned
                && versions_of(store, &context)
                    .await?
                    .iter()
                    .any(super::state::is_live)
            {
                return Ok(Some(context));
            }
        }
        Ok(None)
    }
}

impl PlannedContext {
    pub(super) fn new(
        context: &EncryptionContext,
        versions: &[KeyRecord],
        rows: Option<Vec<Counted>>,
    ) -> Self {
        Self {
            context: context.to_map(),
            versions: versions.iter().map(PlannedVersion::new).collect(),
            keks: keks_of(versions),
            rows,
        }
    }

    pub(super) fn encryption_context(&self) -> Result<EncryptionContext> {
        EncryptionContext::from_pairs(&self.context)
            .context("the plan has an encryption context that cannot be used")
    }

    pub(super) fn has(&self, id: DataKeyId) -> bool {
        let id = id.to_string();
        self.versions.iter().any(|version| version.id == id)
    }
}

impl PlannedVersion {
    fn new(record: &KeyRecord) -> Self {
        Self {
            id: record.id.to_string(),
            usage: record.usage.name().to_owned(),
            version: record.version.get(),
            state: record.state.name().to_owned(),
            revision: record.revision.get(),
        }
    }

    /// Tells whether a version is unchanged since the plan.
    pub(super) fn is(&self, record: &KeyRecord) -> bool {
        *self == Self::new(record)
    }
}

/// Digests contexts and versions, with each part prefixed by its length.
fn digest_of(contexts: &[PlannedContext]) -> Result<String> {
    let mut hash = Sha256::new_with_prefix(FORMAT);
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(&(contexts.len() as u64).to_be_bytes());
    for of in contexts {
        part(of.encryption_context()?.canonical());
        part(&(of.versions.len() as u64).to_be_bytes());
        for version in &of.versions {
            part(version.id.as_bytes());
            part(version.state.as_bytes());
            part(&version.revision.to_be_bytes());
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
