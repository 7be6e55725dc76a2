//! The conformance suite of key stores: the list of its cases, the fixture, and the runner.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod audit;
mod cancellation;
mod changes;
mod ids;
mod jobs;
mod leases;
mod pages;
mod races;
mod records;
mod registry;
mod shredding;
mod states;
mod support;
mod wraps;

use std::fmt;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use encx_core::key::{DataKeyId, KeyState};
use encx_core::store::KeyStore;

use crate::runtime::block_on;

/// No case needs this long, even on a busy machine. One that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(180);

/// A fresh database for one case of the suite.
#[async_trait]
pub trait StoreFixture: Send + Sync + 'static {
    /// Makes an empty, migrated database.
    async fn create() -> Self
    where
        Self: Sized;

    /// Opens another handle on the same database, as another process would.
    async fn open(&self) -> Arc<dyn KeyStore>;

    /// Tells whether the store offers this, as stores should. If not, its cases pass untested.
    fn offers(&self, _what: StoreOffer) -> bool {
        true
    }

    /// Lists the store's audit log, oldest first; `None` if the store keeps none. Its cases then pass untested.
    async fn audit_log(&self) -> Option<Vec<AuditedChange>>;

    /// Removes the database. Called after the case, even if it failed.
    async fn remove(&self);
}

/// An optional part of a store, besides keeping keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreOffer {
    /// [`KeyStore::audit`].
    AuditLog,
    /// [`KeyStore::jobs`].
    Jobs,
    /// [`KeyStore::leases`].
    Leases,
    /// [`KeyStore::processes`].
    Processes,
}

/// A row of a store's audit log: one change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditedChange {
    /// The key.
    pub key: DataKeyId,
    /// The state before; `None` for an added key.
    pub from: Option<KeyState>,
    /// The state after. A change of wraps does not change it.
    pub to: KeyState,
    /// The reason that the caller gave.
    pub reason: Option<String>,
}

impl AuditedChange {
    /// Makes a row.
    #[must_use]
    pub fn new(key: DataKeyId, from: Option<KeyState>, to: KeyState, reason: Option<String>) -> Self {
        Self {
            key,
            from,
            to,
            reason,
        }
    }
}

/// One case of the conformance suite.
#[derive(Clone, Copy)]
pub struct StoreCase {
    name: &'static str,
    run: fn(Arc<dyn StoreFixture>) -> Running,
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

impl StoreCase {
    /// Returns the case's name, which is also its test's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the case on its own fixture.
    ///
    /// # Panics
    ///
    /// If the store does not behave as the case requires, or does not answer within minutes.
    pub fn run<F: StoreFixture>(&self) {
        block_on(async {
            let fixture: Arc<dyn StoreFixture> = Arc::new(F::create().await);
            let case = tokio::spawn(tokio::time::timeout(DEADLINE, (self.run)(fixture.clone())));
            let outcome = case.await;
            fixture.remove().await;
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(_)) => panic!("`{}` did not finish within {DEADLINE:?}: it hangs", self.name),
                Err(error) => resume_unwind(error.into_panic()),
            }
        });
    }
}

impl fmt::Debug for StoreCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreCase({})", self.name)
    }
}

/// Mounts the conformance suite of key stores: one `#[test]` for each case.
///
/// The suite owns the list, so a store cannot leave a case out. The argument is a type that implements [`StoreFixture`].
///
/// ```
/// use std::sync::Arc;
///
/// use encx_core::store::KeyStore;
/// use encx_testkit::{AuditedChange, MemoryKeyStore, StoreFixture};
///
/// struct Memory(MemoryKeyStore);
///
/// #[async_trait::async_trait]
/// impl StoreFixture for Memory {
///     async fn create() -> Self {
///         Self(MemoryKeyStore::new())
///     }
///
///     async fn open(&self) -> Arc<dyn KeyStore> {
///         Arc::new(self.0.clone())
///     }
///
///     async fn audit_log(&self) -> Option<Vec<AuditedChange>> {
///         Some(self.0.audit_log())
///     }
///
///     async fn remove(&self) {}
/// }
///
/// encx_testkit::store_conformance!(Memory);
/// ```
#[macro_export]
macro_rules! store_conformance {
    ($fixture:ty) => {
        $crate::__store_cases!($crate::__store_tests, $fixture);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_tests {
    ($fixture:ty; $($module:ident: $($case:ident),+;)+) => {$($(
        #[test]
        fn $case() {
            $crate::store_case(stringify!($case)).run::<$fixture>();
        }
    )+)+};
}

/// The only list of cases.
#[doc(hidden)]
#[macro_export]
macro_rules! __store_cases {
    ($then:path, $($argument:tt)*) => {
        $then! {
            $($argument)*;
            records:
                every_field_comes_back_bit_by_bit,
                the_longest_and_strangest_texts_come_back,
                every_state_comes_back,
                two_handles_agree,
                loading_sorts_and_leaves_out_what_is_unknown,
                nothing_asked_is_nothing_answered,
                many_scopes_and_ids_fit_one_call;
            ids:
                versions_follow_without_gaps,
                ids_only_grow,
                an_id_belongs_to_one_scope,
                a_new_key_is_pre_active_or_active,
                a_second_active_key_is_refused,
                a_change_names_its_scope;
            states:
                every_legal_change_is_made_and_every_other_refused,
                promotion_demotes_in_the_same_step,
                an_older_version_is_never_promoted_over_a_newer_one,
                a_resumed_key_goes_back_to_where_it_was,
                a_key_suspended_while_active_comes_back_deactivated_after_a_promotion,
                destroyed_keys_have_no_wraps_and_take_none,
                times_grow_and_stay,
                a_reason_has_bounds,
                every_row_of_the_audit_log_has_the_reason;
            shredding:
                a_tombstone_comes_back_and_stands_alone,
                nothing_is_added_where_all_is_destroyed,
                a_first_use_and_a_tombstone_do_not_both_win,
                no_race_leaves_a_key_in_a_shredded_scope;
            wraps:
                wraps_have_bounds,
                wraps_are_replaced_as_a_set,
                each_wrap_change_has_its_own_outcome,
                stale_revisions_are_refused;
            races:
                one_of_sixteen_inserts_wins,
                one_of_sixteen_promotions_wins,
                one_of_sixteen_state_changes_wins,
                one_of_sixteen_wrap_changes_wins,
                readers_always_see_one_active_version;
            pages:
                pages_list_every_key_once_while_keys_are_added,
                pages_end_where_the_keys_end,
                filters_list_what_matches,
                a_summary_counts_every_version,
                keks_are_counted_with_what_they_alone_wrap;
            changes:
                polling_begins_at_the_start_or_now,
                more_changes_than_a_page_are_listed_all,
                a_promotion_lists_both_keys,
                polling_misses_nothing_under_concurrent_writers;
            audit:
                every_change_leaves_an_entry,
                the_audit_log_is_filtered_and_paged;
            cancellation:
                a_cancelled_write_is_done_or_not_done,
                a_cancelled_read_harms_no_other;
            leases:
                a_lease_is_held_by_one,
                a_lease_ends_by_itself,
                a_lease_is_given_back_by_its_holder_alone,
                one_of_sixteen_takes_a_lease,
                a_lease_has_a_fit_name;
            jobs:
                a_job_is_joined_or_restarted,
                one_of_sixteen_moves_the_frontier,
                an_abandoned_range_is_claimed_once,
                a_claim_is_kept,
                what_is_complete_counts_once,
                sixteen_complete_the_last_ranges,
                a_replaced_run_is_over,
                a_walk_of_many_misses_nothing,
                a_job_has_bounds,
                faults_are_kept_with_their_run;
            registry:
                processes_are_listed_while_they_live,
                fences_grow_and_are_acknowledged,
                sixteen_raise_sixteen_fences,
                counts_add_up_by_day,
                sixteen_add_their_counts;
        }
    };
}

macro_rules! list {
    (; $($module:ident: $($case:ident),+;)+) => {
        /// Lists the cases of the conformance suite of key stores, for tests of the suite itself.
        #[must_use]
        pub fn store_cases() -> Vec<StoreCase> {
            vec![$($(StoreCase {
                name: stringify!($case),
                run: |fixture| Box::pin($module::$case(fixture)),
            }),+),+]
        }
    };
}

crate::__store_cases!(list,);

/// Returns the case with this name.
///
/// # Panics
///
/// If there is none.
#[doc(hidden)]
#[must_use]
pub fn store_case(name: &str) -> StoreCase {
    let mut cases = store_cases().into_iter();
    cases.find(|case| case.name == name).unwrap()
}
