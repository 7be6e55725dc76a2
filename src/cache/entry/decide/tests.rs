//! What is decided, as a table.

use encx_core::context::EncryptionContext;
use encx_core::key::{DataKey, KekId, KeyState, KeyUsage, KeyVersion, KmsName, Scope, WrappedKey};
use encx_core::store::{Revision, StoredWrap, Timestamp};
use encx_suite::SuiteOptions;

use super::*;
use crate::cache::KeyMeta;
use crate::cache::entry::records::Used;
use crate::cache::entry::refresh_schedule::ScheduledKey;

/// Seconds.
const STATE_TTL: u64 = 60;
const TTL: u64 = 3600;
const STALE: u64 = 600;
/// The clock's time.
const NOW: u64 = 100_000;

fn limits() -> Limits {
    Limits {
        ttl: Duration::from_secs(TTL),
        refresh_ahead: 0.1,
        stale_encrypt: Duration::ZERO,
        stale_decrypt: Duration::from_secs(STALE),
        state_ttl: Duration::from_secs(STATE_TTL),
        max_keyrings: 10,
        load_timeout: Duration::from_secs(10),
        fail_closed_on_stale_state: false,
        create_on_first_use: true,
        accept_compromised: false,
        suite: SuiteOptions::default(),
    }
}

/// What is known of a scope with one version, and what the call has done.
#[derive(Clone, Copy)]
struct Case {
    state: KeyState,
    /// How long ago the records were read, in seconds.
    records: u64,
    /// How long ago the store was last polled.
    polled: u64,
    /// How long ago the key was unwrapped; `None` if it is not cached.
    key: Option<u64>,
    /// The key store does not answer.
    no_store: bool,
    /// The KMS was asked, and did not answer.
    no_kms: bool,
    /// The call has read the records.
    has_read: bool,
    /// The call had the key unwrapped, and the entry does not keep it.
    loaded: bool,
    /// This process has encrypted under a later version, which the records do not have.
    lost: bool,
    has_wraps: bool,
}

/// Nothing is cached, and the records were read just now.
const COLD: Case = Case {
    state: KeyState::Active,
    records: 0,
    polled: 0,
    key: None,
    no_store: false,
    no_kms: false,
    has_read: false,
    loaded: false,
    lost: false,
    has_wraps: true,
};

const HOT: Case = Case { key: Some(0), ..COLD };

fn id() -> DataKeyId {
    DataKeyId::generate(1, None).expect("there is randomness")
}

fn record(case: Case, id: DataKeyId, scope: Scope, key: &DataKey) -> KeyRecord {
    let version = KeyVersion::new(1).expect("not zero");
    let at = Timestamp::from_micros(0);
    let mut record = KeyRecord::new(id, scope, KeyUsage::Data, version, key.check(id), at);
    record.state = case.state;
    if case.has_wraps && case.state != KeyState::Destroyed {
        let kek = KekId::new("kek").expect("a name");
        let kms = KmsName::new("default").expect("a name");
        record.wraps = vec![StoredWrap::new(kms, WrappedKey::new(kek, vec![1]))];
    }
    record
}

/// Decides, and says what in a word or two.
fn decide(case: Case, limits: &Limits, ask: impl Fn(DataKeyId) -> Request) -> String {
    let ago = |age: u64| Duration::from_secs(NOW - age);
    let context = EncryptionContext::from_pairs([("tenantId", "t-1")]).expect("a context");
    let scope = Scope::of(KeyUsage::Data, &context);
    let (id, key) = (id(), DataKey::generate().expect("there is randomness"));
    let records = Arc::new(Records {
        list: vec![Arc::new(record(case, id, scope, &key))],
        read_at: ago(case.records),
        tick: 1,
        used: case.lost.then(|| Used {
            id: DataKeyId::generate(2, None).expect("there is randomness"),
            revision: Revision::FIRST,
        }),
    });
    let mut state = State {
        records: Some(records),
        ..State::default()
    };
    if let Some(age) = case.key {
        let expires_at = ago(age) + limits.ttl;
        let meta = KeyMeta::new(id, expires_at, &Arc::default());
        if case.no_kms {
            meta.unanswered_until.set(Duration::MAX);
        }
        let cached = CachedKey::new(meta, KeyUsage::Data, scope, &key, limits.suite);
        state.keys.push(ScheduledKey::new(&cached, limits));
    }
    let loaded = || {
        let meta = KeyMeta::new(id, ago(0), &Arc::default());
        CachedKey::new(meta, KeyUsage::Data, scope, &key, limits.suite)
    };
    let so_far = SoFar {
        has_read: case.has_read,
        key: case.loaded.then(loaded),
        unanswered: case.no_kms.then(|| (id, Error::Interrupted)),
        ..SoFar::default()
    };
    let around = Surroundings {
        limits,
        now: ago(0),
        polled_at: ago(case.polled),
        is_store_unreachable: case.no_store,
        is_unknown: false,
    };
    said(state.decide(ask(id), &so_far, &around))
}

fn said(decision: Decision) -> String {
    match decision {
        Decision::Use(found) => {
            let what = if found.key.is_some() {
                "use key"
            } else {
                "use records"
            };
            let stale = if found.are_states_stale {
                ", states stale"
            } else {
                ""
            };
            format!("{what}{stale}")
        }
        Decision::Load(Load::FirstVersion) => "make".to_owned(),
        Decision::Load(Load::Key(_)) => "unwrap".to_owned(),
        Decision::Load(Load::Records { again }) => format!("read{}", if again { " again" } else { "" }),
        Decision::Refuse(why, _) => format!("refuse: {why:?}"),
    }
}

fn encrypt(_: DataKeyId) -> Request {
    Request::Active { may_make: true }
}

/// State × age of records and key × purpose × outage.
#[test]
fn one_version() {
    use KeyState::{Compromised, Deactivated, Destroyed, PreActive, Suspended};

    let old = STATE_TTL + 1;
    let expired = TTL + 1;
    let both_out = Case {
        no_store: true,
        no_kms: true,
        ..HOT
    };
    #[rustfmt::skip]
    let table = [
        // Hot and cold.
        (HOT, "use key", "use key"),
        (COLD, "unwrap", "unwrap"),
        (Case { key: Some(TTL - 1), ..HOT }, "use key", "use key"),
        (Case { key: Some(expired), ..HOT }, "unwrap", "unwrap"),
        // Old records: polls keep states current, but nothing is unwrapped by them.
        (Case { records: old, ..HOT }, "use key", "use key"),
        (Case { records: old, ..COLD }, "read again", "read again"),
        (Case { records: old, polled: old, ..HOT }, "read again", "read again"),
        (Case { records: old, polled: old, has_read: true, ..HOT }, "use key", "use key"),
        (Case { records: old, polled: old, has_read: true, ..COLD }, "unwrap", "unwrap"),
        // The key store does not answer.
        (Case { records: old, polled: old, no_store: true, ..HOT }, "use key, states stale", "use key, states stale"),
        (Case { records: old, polled: old, no_store: true, ..COLD }, "unwrap", "unwrap"),
        (Case { records: expired, polled: expired, no_store: true, ..HOT }, "read again", "read again"),
        // The KMS does not answer: what has not expired serves, what has serves only to decrypt, and not for long.
        (Case { no_kms: true, ..HOT }, "use key", "use key"),
        (Case { no_kms: true, ..COLD }, "refuse: Unanswered", "refuse: Unanswered"),
        (Case { no_kms: true, key: Some(expired), ..HOT }, "refuse: Unanswered", "use key"),
        (Case { no_kms: true, key: Some(TTL + STALE), ..HOT }, "refuse: Unanswered", "refuse: Unanswered"),
        // Neither answers.
        (Case { records: old, polled: old, key: Some(expired), ..both_out }, "refuse: Unanswered", "use key, states stale"),
        // States.
        (Case { state: PreActive, ..HOT }, "refuse: NoneActive", "use key"),
        (Case { state: PreActive, ..COLD }, "refuse: NoneActive", "unwrap"),
        (Case { state: Deactivated, ..HOT }, "refuse: NoneActive", "use key"),
        (Case { state: Deactivated, ..COLD }, "refuse: NoneActive", "unwrap"),
        (Case { state: Suspended, ..HOT }, "refuse: NoneActive", "refuse: State"),
        (Case { state: Suspended, records: old, ..HOT }, "refuse: NoneActive", "read again"),
        (Case { state: Suspended, records: old, has_read: true, ..HOT }, "refuse: NoneActive", "refuse: State"),
        (Case { state: Compromised, ..HOT }, "refuse: NoneActive", "refuse: State"),
        (Case { state: Destroyed, ..HOT }, "refuse: NoneActive", "refuse: State"),
        // A key that the call had unwrapped serves it, even if it has expired by now, unless it was withdrawn since.
        (Case { loaded: true, ..COLD }, "use key", "use key"),
        (Case { loaded: true, records: old, ..COLD }, "use key", "use key"),
        (Case { loaded: true, state: Deactivated, ..COLD }, "refuse: NoneActive", "use key"),
        (Case { loaded: true, state: Suspended, ..COLD }, "refuse: NoneActive", "refuse: State"),
        (Case { loaded: true, state: Destroyed, ..COLD }, "refuse: NoneActive", "refuse: State"),
        // The store has lost a version under which this process encrypted; the others still decrypt.
        (Case { lost: true, ..HOT }, "refuse: Lost", "use key"),
        (Case { lost: true, records: old, ..HOT }, "read again", "use key"),
        (Case { lost: true, records: old, has_read: true, ..HOT }, "refuse: Lost", "use key"),
        // A version whose wraps are gone.
        (Case { has_wraps: false, ..COLD }, "unwrap", "refuse: State"),
    ];
    for (row, (case, encrypts, decrypts)) in table.into_iter().enumerate() {
        assert_eq!(decide(case, &limits(), encrypt), encrypts, "row {row}, encrypt");
        assert_eq!(
            decide(case, &limits(), Request::Key),
            decrypts,
            "row {row}, decrypt"
        );
    }
}

#[test]
fn what_the_builder_allows() {
    let old = STATE_TTL + 1;
    let mut strict = limits();
    strict.fail_closed_on_stale_state = true;
    let case = Case {
        records: old,
        polled: old,
        no_store: true,
        ..HOT
    };
    assert_eq!(decide(case, &strict, encrypt), "refuse: StaleStates");
    assert_eq!(decide(case, &strict, Request::Key), "refuse: StaleStates");
    // What a call could read is not stale, even if the store has failed since.
    let case = Case {
        has_read: true,
        records: 0,
        ..case
    };
    assert_eq!(decide(case, &strict, encrypt), "use key");

    let mut lenient = limits();
    lenient.accept_compromised = true;
    let case = Case {
        state: KeyState::Compromised,
        ..HOT
    };
    assert_eq!(decide(case, &lenient, encrypt), "refuse: NoneActive");
    assert_eq!(decide(case, &lenient, Request::Key), "use key");
}

#[test]
fn versions_without_a_key() {
    let versions = |_| Request::Versions;
    assert_eq!(decide(COLD, &limits(), versions), "use records");
    assert_eq!(decide(COLD, &limits(), Request::VersionsWith), "use records");
    let other = |_| Request::VersionsWith(id());
    assert_eq!(decide(COLD, &limits(), other), "read again");
    let read = Case {
        has_read: true,
        ..COLD
    };
    assert_eq!(decide(read, &limits(), other), "refuse: Unknown");
    assert_eq!(decide(read, &limits(), |_| Request::Key(id())), "refuse: Unknown");
    let lost = Case { lost: true, ..COLD };
    assert_eq!(decide(lost, &limits(), versions), "use records");
    let lost = Case {
        records: STATE_TTL + 1,
        ..lost
    };
    assert_eq!(decide(lost, &limits(), versions), "read again");
}

#[test]
fn no_version() {
    let (limits, empty) = (
        limits(),
        Arc::new(Records {
            list: Vec::new(),
            read_at: Duration::ZERO,
            tick: 1,
            used: None,
        }),
    );
    let around = Surroundings {
        limits: &limits,
        now: Duration::ZERO,
        polled_at: Duration::ZERO,
        is_store_unreachable: false,
        is_unknown: false,
    };
    let unread = State::default();
    let known = State {
        records: Some(Arc::clone(&empty)),
        ..State::default()
    };
    let (nothing, read) = (
        SoFar::default(),
        SoFar {
            has_read: true,
            ..SoFar::default()
        },
    );
    let decide = |state: &State, request, so_far: &SoFar| said(state.decide(request, so_far, &around));
    let (may, may_not) = (
        Request::Active { may_make: true },
        Request::Active { may_make: false },
    );
    for request in [may, may_not, Request::Key(id()), Request::Versions] {
        assert_eq!(decide(&unread, request, &nothing), "read");
    }
    assert_eq!(decide(&known, may, &nothing), "make");
    assert_eq!(decide(&known, may_not, &nothing), "read again");
    assert_eq!(decide(&known, may_not, &read), "refuse: NoneActive");
    assert_eq!(decide(&known, Request::Versions, &nothing), "use records");
    assert_eq!(decide(&known, Request::Key(id()), &nothing), "read again");
    let asked = Surroundings {
        is_unknown: true,
        ..around
    };
    let again = known.decide(Request::Key(id()), &nothing, &asked);
    assert_eq!(said(again), "refuse: Unknown");
    // An entry that the cache has dropped keeps nothing; the call goes on with what it read itself.
    let own = SoFar {
        records: Some(empty),
        ..SoFar::default()
    };
    assert_eq!(decide(&unread, may, &own), "make");
}
