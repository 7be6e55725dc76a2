//! The conformance suite of key stores detects stores with one fault each.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

#[path = "store_suite_catches/sharing.rs"]
mod sharing;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use encx::keys::{DataKeyId, KeyState, Scope};
use encx::store::{
    AuditLog, ChangeCursor, ChangePage, CursorPosition, JobStore, KekUse, KeyChanges, KeyPage, KeyQuery,
    KeyRecord, KeyStore, KeySummary, Leases, NewKey, ProcessRegistry, Revision, StateChange, StoreError,
    Timestamp, WrapChange, WrapOutcome,
};
use encx_testkit::{AuditedChange, MemoryKeyStore, StoreFixture, store_cases};

/// A fault of a store.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    AcknowledgesAnEarlierFence,
    AddsOverTombstones,
    AddsToTheShredded,
    AnyoneReleasesALease,
    AppliesOverAnyRevision,
    AuditIgnoresTheEnd,
    AuditLeavesOutDemotions,
    AuditsOneReasonAChange,
    ChangesDoNotShowInPolls,
    ClaimsEndAtOnce,
    CommitsOutOfOrder,
    CompletesTwice,
    ContextFilterTakesFirstOnly,
    CountsOverwrite,
    CountsTwice,
    CountsWhatIsLost,
    CursorSkipsAMicrosecond,
    DemotesBeforeItPromotes,
    DestroyedKeepsWraps,
    DestroyedTakesWraps,
    ExtendsFromAnywhere,
    ForgetsFaults,
    FinishesBeforeTheLastRange,
    ForgetsMaterial,
    ForgetsNoProcess,
    ForgetsOnePromotionInPolls,
    GivesARangeToTwo,
    HandlesCache,
    HeartbeatsBeginAnew,
    IgnoresScopeOfChanges,
    InsertsWhateverTheId,
    JoinsUnderAnyPlan,
    KeepsWhatIsLost,
    KeksCountEveryWrapAsSole,
    LoadsOneThousandScopes,
    LosersOfInsertsWin,
    LosesAbandonedRanges,
    NeverFinishes,
    NextPageRepeats,
    PagesSkipWhatIsAdded,
    PromotesTheOlder,
    PromotionDoesNotDemote,
    ReplacesOverAnyRevision,
    ReplacesWrapsTogether,
    ResumesBesideAnother,
    ReturnsWhatWasAskedNotWhatIs,
    ServesOldRuns,
    SortsByNothing,
    StateFilterTakesFirstOnly,
    SummaryLeavesOutTheDestroyed,
    TermsOfLeasesStand,
    TruncatesTimes,
    TwoHoldALease,
    TwoRaiseOneFence,
}

/// Every fault, and the case that must detect it; each was observed to do so.
const FAULTS: [(Fault, &str); 54] = [
    (
        Fault::AcknowledgesAnEarlierFence,
        "fences_grow_and_are_acknowledged",
    ),
    (
        Fault::AddsOverTombstones,
        "a_tombstone_comes_back_and_stands_alone",
    ),
    (
        Fault::AddsToTheShredded,
        "nothing_is_added_where_all_is_destroyed",
    ),
    (
        Fault::AnyoneReleasesALease,
        "a_lease_is_given_back_by_its_holder_alone",
    ),
    (Fault::AppliesOverAnyRevision, "one_of_sixteen_state_changes_wins"),
    (Fault::AuditIgnoresTheEnd, "the_audit_log_is_filtered_and_paged"),
    (Fault::AuditLeavesOutDemotions, "every_change_leaves_an_entry"),
    (
        Fault::AuditsOneReasonAChange,
        "every_row_of_the_audit_log_has_the_reason",
    ),
    (Fault::ChangesDoNotShowInPolls, "a_promotion_lists_both_keys"),
    (Fault::ClaimsEndAtOnce, "an_abandoned_range_is_claimed_once"),
    (
        Fault::CommitsOutOfOrder,
        "polling_misses_nothing_under_concurrent_writers",
    ),
    (Fault::CompletesTwice, "what_is_complete_counts_once"),
    (Fault::ContextFilterTakesFirstOnly, "filters_list_what_matches"),
    (Fault::CountsOverwrite, "counts_add_up_by_day"),
    (Fault::CountsTwice, "what_is_complete_counts_once"),
    (Fault::CountsWhatIsLost, "an_abandoned_range_is_claimed_once"),
    (
        Fault::CursorSkipsAMicrosecond,
        "polling_begins_at_the_start_or_now",
    ),
    (
        Fault::DemotesBeforeItPromotes,
        "readers_always_see_one_active_version",
    ),
    (
        Fault::DestroyedKeepsWraps,
        "destroyed_keys_have_no_wraps_and_take_none",
    ),
    (
        Fault::DestroyedTakesWraps,
        "destroyed_keys_have_no_wraps_and_take_none",
    ),
    (Fault::ExtendsFromAnywhere, "one_of_sixteen_moves_the_frontier"),
    (Fault::ForgetsFaults, "faults_are_kept_with_their_run"),
    (Fault::FinishesBeforeTheLastRange, "what_is_complete_counts_once"),
    (Fault::ForgetsMaterial, "every_field_comes_back_bit_by_bit"),
    (Fault::ForgetsNoProcess, "processes_are_listed_while_they_live"),
    (Fault::ForgetsOnePromotionInPolls, "a_promotion_lists_both_keys"),
    (Fault::GivesARangeToTwo, "an_abandoned_range_is_claimed_once"),
    (Fault::HandlesCache, "two_handles_agree"),
    (Fault::HeartbeatsBeginAnew, "processes_are_listed_while_they_live"),
    (Fault::IgnoresScopeOfChanges, "a_change_names_its_scope"),
    (Fault::InsertsWhateverTheId, "ids_only_grow"),
    (Fault::JoinsUnderAnyPlan, "a_job_is_joined_or_restarted"),
    (Fault::KeepsWhatIsLost, "a_claim_is_kept"),
    (
        Fault::KeksCountEveryWrapAsSole,
        "keks_are_counted_with_what_they_alone_wrap",
    ),
    (Fault::LoadsOneThousandScopes, "many_scopes_and_ids_fit_one_call"),
    (Fault::LosersOfInsertsWin, "one_of_sixteen_inserts_wins"),
    (Fault::LosesAbandonedRanges, "an_abandoned_range_is_claimed_once"),
    (Fault::NeverFinishes, "sixteen_complete_the_last_ranges"),
    (
        Fault::NextPageRepeats,
        "pages_list_every_key_once_while_keys_are_added",
    ),
    (Fault::PagesSkipWhatIsAdded, "pages_end_where_the_keys_end"),
    (
        Fault::PromotesTheOlder,
        "an_older_version_is_never_promoted_over_a_newer_one",
    ),
    (
        Fault::PromotionDoesNotDemote,
        "promotion_demotes_in_the_same_step",
    ),
    (Fault::ReplacesOverAnyRevision, "one_of_sixteen_wrap_changes_wins"),
    (
        Fault::ReplacesWrapsTogether,
        "each_wrap_change_has_its_own_outcome",
    ),
    (
        Fault::ResumesBesideAnother,
        "a_key_suspended_while_active_comes_back_deactivated_after_a_promotion",
    ),
    (Fault::ReturnsWhatWasAskedNotWhatIs, "wraps_are_replaced_as_a_set"),
    (Fault::ServesOldRuns, "a_replaced_run_is_over"),
    (
        Fault::SortsByNothing,
        "loading_sorts_and_leaves_out_what_is_unknown",
    ),
    (Fault::StateFilterTakesFirstOnly, "filters_list_what_matches"),
    (
        Fault::SummaryLeavesOutTheDestroyed,
        "a_summary_counts_every_version",
    ),
    (Fault::TermsOfLeasesStand, "a_lease_ends_by_itself"),
    (Fault::TruncatesTimes, "times_grow_and_stay"),
    (Fault::TwoHoldALease, "a_lease_is_held_by_one"),
    (Fault::TwoRaiseOneFence, "sixteen_raise_sixteen_fences"),
];

/// A cached query and its answer.
type Answer = (Vec<Scope>, Vec<KeyRecord>);

/// A memory store with one fault.
#[derive(Clone, Debug)]
struct Broken {
    inner: MemoryKeyStore,
    fault: Fault,
    cached: Arc<Mutex<Vec<Answer>>>,
    memories: Arc<Mutex<sharing::Memories>>,
}

impl Broken {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn find(&self, id: DataKeyId) -> Option<KeyRecord> {
        self.inner.records().into_iter().find(|record| record.id == id)
    }

    fn edit(&self, id: DataKeyId, edit: impl FnOnce(&mut KeyRecord)) {
        self.inner.tamper(|rows| {
            if let Some(record) = rows.iter_mut().find(|record| record.id == id) {
                edit(record);
            }
        });
    }

    fn edited(&self, record: KeyRecord) -> KeyRecord {
        self.find(record.id).unwrap_or(record)
    }
}

#[async_trait]
impl KeyStore for Broken {
    async fn load(&self, scopes: &[Scope]) -> Result<Vec<KeyRecord>, StoreError> {
        if self.is(Fault::LoadsOneThousandScopes) {
            return self.inner.load(&scopes[..scopes.len().min(1000)]).await;
        }
        if self.is(Fault::HandlesCache) {
            let cached = self.cached.lock().unwrap().clone();
            if let Some((_, records)) = cached.iter().find(|(asked, _)| asked == scopes) {
                return Ok(records.clone());
            }
        }
        let mut records = self.inner.load(scopes).await?;
        if self.is(Fault::HandlesCache) {
            self.cached
                .lock()
                .unwrap()
                .push((scopes.to_vec(), records.clone()));
        }
        if self.is(Fault::SortsByNothing) {
            records.sort_by_key(|record| std::cmp::Reverse(record.id));
        }
        Ok(records)
    }

    async fn get(&self, ids: &[DataKeyId]) -> Result<Vec<KeyRecord>, StoreError> {
        self.inner.get(ids).await
    }

    async fn insert(&self, new: &NewKey) -> Result<KeyRecord, StoreError> {
        let mut new = new.clone();
        if self.is(Fault::ForgetsMaterial) {
            for wrap in &mut new.wraps {
                wrap.wrapped.kek_material = None;
            }
        }
        match self.fault {
            Fault::AddsToTheShredded => new.revives = new.state == KeyState::Active,
            Fault::AddsOverTombstones if new.state != KeyState::Destroyed => {
                let scope = new.scope;
                self.inner
                    .tamper(|rows| rows.retain(|row| row.scope != scope || !row.is_tombstone()));
            }
            _ => {}
        }
        match self.inner.insert(&new).await {
            Err(StoreError::Conflict) if self.is(Fault::LosersOfInsertsWin) => {
                let siblings = self.inner.load(&[new.scope]).await?;
                siblings.into_iter().next_back().ok_or(StoreError::Conflict)
            }
            Err(StoreError::Conflict)
                if self.is(Fault::InsertsWhateverTheId) && self.find(new.id).is_none() =>
            {
                let at = Timestamp::from_micros(1);
                let mut record = KeyRecord::new(new.id, new.scope, new.usage, new.version, new.key_check, at);
                record.context = new.context.to_map();
                record.wraps = new.wraps;
                self.inner.tamper(|rows| rows.push(record.clone()));
                Ok(record)
            }
            other => other,
        }
    }

    async fn apply(&self, change: &StateChange) -> Result<KeyRecord, StoreError> {
        let mut change = change.clone();
        let before = self.inner.load(&[change.scope]).await?;
        let current = self.find(change.id);
        match (&current, self.fault) {
            (Some(current), Fault::AppliesOverAnyRevision) => {
                change.revision = current.revision;
                if current.state == change.to {
                    return Ok(current.clone());
                }
            }
            (Some(current), Fault::IgnoresScopeOfChanges) => change.scope = current.scope,
            (Some(_), Fault::DemotesBeforeItPromotes) if change.to == KeyState::Active => {
                for old in before.iter().filter(|old| old.state == KeyState::Active) {
                    self.edit(old.id, |record| record.state = KeyState::Deactivated);
                }
                // Until readers have looked: more loads than the other racers make.
                let seen = self.inner.loads();
                for _ in 0..100_000 {
                    if self.inner.loads() > seen + 100 {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            (Some(current), Fault::PromotesTheOlder) if change.to == KeyState::Active => {
                let legal = current.state.may_become(change.to, current.suspended_from);
                if legal && current.revision == change.revision {
                    self.edit(change.id, |record| {
                        record.state = KeyState::Active;
                        record.revision = record.revision.next();
                    });
                    return Ok(self.edited(current.clone()));
                }
            }
            _ => {}
        }
        let changed = self.inner.apply(&change).await?;
        for old in before.iter().filter(|old| old.id != changed.id) {
            let undo = match self.fault {
                Fault::PromotionDoesNotDemote => old.state == KeyState::Active,
                Fault::ResumesBesideAnother => old.suspended_from == Some(KeyState::Active),
                _ => false,
            };
            if undo {
                self.edit(old.id, |record| *record = old.clone());
            }
        }
        match self.fault {
            Fault::DestroyedKeepsWraps if change.to == KeyState::Destroyed => {
                let wraps = current.map(|current| current.wraps).unwrap_or_default();
                self.edit(changed.id, |record| record.wraps = wraps);
            }
            Fault::ChangesDoNotShowInPolls => {
                let at = current.map_or(changed.changed_at, |current| current.changed_at);
                self.edit(changed.id, |record| record.changed_at = at);
            }
            Fault::CommitsOutOfOrder => self.edit(changed.id, |record| {
                record.changed_at = Timestamp::from_micros(record.changed_at.as_micros() - 20_000);
            }),
            Fault::TruncatesTimes => self.edit(changed.id, |record| {
                record.changed_at =
                    Timestamp::from_micros(record.changed_at.as_micros() / 1_000_000 * 1_000_000);
            }),
            _ => {}
        }
        Ok(self.edited(changed))
    }

    async fn replace_wraps(&self, changes: &[WrapChange]) -> Result<Vec<WrapOutcome>, StoreError> {
        let mut changes = changes.to_vec();
        for change in &mut changes {
            let Some(current) = self.find(change.id) else {
                continue;
            };
            match self.fault {
                Fault::ReplacesOverAnyRevision => change.revision = current.revision,
                Fault::IgnoresScopeOfChanges => change.scope = current.scope,
                Fault::ReplacesWrapsTogether if current.revision != change.revision => {
                    return Err(StoreError::Conflict);
                }
                Fault::DestroyedTakesWraps if current.state == KeyState::Destroyed => {
                    self.edit(change.id, |record| record.wraps.clone_from(&change.wraps));
                }
                _ => {}
            }
        }
        let mut outcomes = self.inner.replace_wraps(&changes).await?;
        if self.is(Fault::ReturnsWhatWasAskedNotWhatIs) {
            for outcome in &mut outcomes {
                if let Ok(record) = &mut outcome.result {
                    record.revision = Revision::FIRST;
                }
            }
        }
        Ok(outcomes)
    }

    async fn page(&self, query: &KeyQuery) -> Result<KeyPage, StoreError> {
        let mut query = query.clone();
        if self.is(Fault::StateFilterTakesFirstOnly) {
            query.states.truncate(1);
        }
        if self.is(Fault::ContextFilterTakesFirstOnly) {
            query.context = query.context.into_iter().take(1).collect();
        }
        let mut page = self.inner.page(&query).await?;
        match (self.fault, query.after) {
            (Fault::NextPageRepeats, Some(after)) => {
                page.records.splice(0..0, self.find(after)).for_each(drop);
            }
            (Fault::PagesSkipWhatIsAdded, _) => {
                // An empty page at the end: a caller who counts pages gets one too many.
                page.next = page.next.or(page.records.last().map(|record| record.id));
            }
            _ => {}
        }
        Ok(page)
    }

    async fn summary(&self) -> Result<KeySummary, StoreError> {
        let mut summary = self.inner.summary().await?;
        if self.is(Fault::SummaryLeavesOutTheDestroyed) {
            summary.counts.retain(|count| count.state != KeyState::Destroyed);
        }
        Ok(summary)
    }

    async fn keks(&self) -> Result<Vec<KekUse>, StoreError> {
        let mut keks = self.inner.keks().await?;
        if self.is(Fault::KeksCountEveryWrapAsSole) {
            keks.iter_mut().for_each(|kek| kek.sole = kek.versions);
        }
        Ok(keks)
    }

    async fn changed_since(&self, cursor: &ChangeCursor) -> Result<ChangePage, StoreError> {
        let mut page = self.inner.changed_since(cursor).await?;
        match (self.fault, page.next.position()) {
            (Fault::CursorSkipsAMicrosecond, CursorPosition::At { at, .. }) => {
                page.next = ChangeCursor::at(Timestamp::from_micros(at.as_micros() + 2), None);
            }
            (Fault::ForgetsOnePromotionInPolls, _) => {
                page.changes
                    .retain(|change| change.state != KeyState::Deactivated);
            }
            _ => {}
        }
        Ok(page)
    }

    fn changes(&self) -> KeyChanges {
        self.inner.changes()
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }

    fn jobs(&self) -> Option<&dyn JobStore> {
        Some(self)
    }

    fn processes(&self) -> Option<&dyn ProcessRegistry> {
        Some(self)
    }

    fn audit(&self) -> Option<&dyn AuditLog> {
        Some(self)
    }
}

struct BrokenFixture(Broken);

/// The fault of the next fixture: a fixture creates itself.
static NEXT: Mutex<Fault> = Mutex::new(Fault::SortsByNothing);

#[async_trait]
impl StoreFixture for BrokenFixture {
    async fn create() -> Self {
        let fault = *NEXT.lock().unwrap();
        Self(Broken {
            inner: MemoryKeyStore::new(),
            fault,
            cached: Arc::default(),
            memories: Arc::default(),
        })
    }

    async fn open(&self) -> Arc<dyn KeyStore> {
        let mut handle = self.0.clone();
        handle.cached = Arc::default();
        Arc::new(handle)
    }

    async fn audit_log(&self) -> Option<Vec<AuditedChange>> {
        let mut log = self.0.inner.audit_log();
        if self.0.is(Fault::AuditsOneReasonAChange) {
            for place in 1..log.len() {
                let same = log[place].reason == log[place - 1].reason;
                if same {
                    log[place].reason = None;
                }
            }
        }
        Some(log)
    }

    async fn remove(&self) {}
}

#[test]
fn each_fault_is_caught_by_the_case_that_is_about_it() {
    let cases = store_cases();
    let mut escaped = Vec::new();
    for (fault, name) in FAULTS {
        *NEXT.lock().unwrap() = fault;
        let case = cases.iter().find(|case| case.name() == name);
        let case = *case.unwrap_or_else(|| panic!("there is no case `{name}`"));
        if catch_unwind(AssertUnwindSafe(|| case.run::<BrokenFixture>())).is_ok() {
            escaped.push((fault, name));
        }
    }
    assert!(escaped.is_empty(), "not caught: {escaped:#?}");
}
