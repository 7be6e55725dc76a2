//! The rules of a key's life cycle, planned on records in memory.

use super::*;
use crate::key::{KekId, KmsName};
use KeyState::{Active, Compromised, Deactivated, Destroyed, PreActive, Suspended};

const AT: Timestamp = Timestamp::from_micros(1_000);

fn context() -> EncryptionContext {
    EncryptionContext::builder()
        .pair("tenantId", "t")
        .build()
        .unwrap()
}

fn wrap(kek: &str) -> StoredWrap {
    StoredWrap::new(
        KmsName::default(),
        WrappedKey::new(KekId::new(kek).unwrap(), vec![1]),
    )
}

fn new_key(siblings: &[KeyRecord], state: KeyState) -> NewKey {
    let last = siblings.last();
    let id = DataKeyId::generate(1, last.map(|last| last.id)).unwrap();
    let version = last.map_or(KeyVersion::FIRST, |last| last.version.next().unwrap());
    NewKey::new(id, KeyUsage::Data, &context(), KeyCheck::from_bytes([1; 32]))
        .with_version(version)
        .with_state(state)
        .with_wrap(wrap("kek"))
}

/// A scope to which plans are applied as a store does.
#[derive(Default)]
struct Family(Vec<KeyRecord>);

impl Family {
    fn of(states: &[KeyState]) -> Self {
        let mut family = Self::default();
        for state in states {
            family.add(*state);
        }
        family
    }

    fn add(&mut self, state: KeyState) -> Vec<KeyRecord> {
        let writes = new_key(&self.0, state).plan(&self.0, AT).unwrap();
        self.write(&writes);
        writes
    }

    fn change(&mut self, place: usize, to: KeyState) -> Result<Vec<KeyRecord>, StoreError> {
        let writes = StateChange::new(&self.0[place], to).plan(&self.0, AT)?;
        self.write(&writes);
        Ok(writes)
    }

    fn write(&mut self, writes: &[KeyRecord]) {
        for record in writes {
            match self.0.iter_mut().find(|old| old.id == record.id) {
                Some(old) => {
                    assert_eq!(record.revision, old.revision.next(), "over the revision before");
                    *old = record.clone();
                }
                None => self.0.push(record.clone()),
            }
        }
    }

    fn states(&self) -> Vec<KeyState> {
        self.0.iter().map(|record| record.state).collect()
    }
}

#[test]
fn a_promotion_writes_the_key_first_and_then_who_steps_back() {
    let mut family = Family::of(&[Active, PreActive, PreActive]);
    let writes = family.change(1, Active).unwrap();
    assert_eq!(writes.len(), 2, "no other version is touched");
    assert_eq!(writes[0].version.get(), 2);
    assert_eq!(family.states(), [Deactivated, Active, PreActive]);
    assert_eq!(family.0[0].deactivated_at, Some(AT));
    assert_eq!(family.0[1].activated_at, Some(AT));
    // Resuming the active version deactivates no other.
    family.change(1, Suspended).unwrap();
    assert_eq!(family.change(1, Active).unwrap().len(), 1);
}

#[test]
fn one_that_was_suspended_while_active_steps_back_too() {
    for by_insert in [true, false] {
        let mut family = Family::of(&[Active]);
        family.change(0, Suspended).unwrap();
        if by_insert {
            assert_eq!(family.add(Active).len(), 2);
        } else {
            family.add(PreActive);
            assert_eq!(family.change(1, Active).unwrap().len(), 2);
        }
        let first = &family.0[0];
        assert_eq!(
            (first.state, first.suspended_from),
            (Suspended, Some(Deactivated))
        );
        assert_eq!(first.deactivated_at, Some(AT));
        assert!(matches!(
            family.change(0, Active),
            Err(StoreError::IllegalTransition { .. })
        ));
        family.change(0, Deactivated).unwrap();
        assert_eq!(family.states(), [Deactivated, Active]);
    }
}

#[test]
fn those_suspended_from_other_states_and_the_dead_stay_as_they_are() {
    let mut family = Family::of(&[PreActive, PreActive, PreActive, PreActive]);
    family.change(0, Suspended).unwrap();
    family.change(1, Destroyed).unwrap();
    family.change(2, Active).unwrap();
    family.change(2, Compromised).unwrap();
    assert_eq!(family.change(3, Active).unwrap().len(), 1);
    assert_eq!(family.states(), [Suspended, Destroyed, Compromised, Active]);
    assert_eq!(family.0[0].suspended_from, Some(PreActive));
}

#[test]
fn encryption_never_goes_back_to_an_earlier_version() {
    for later in [Active, Suspended, Compromised, Destroyed] {
        let mut family = Family::of(&[PreActive, PreActive]);
        family.change(1, Active).unwrap();
        if later == Destroyed {
            family.change(1, Suspended).unwrap();
        }
        if later != Active {
            family.change(1, later).unwrap();
        }
        assert!(
            matches!(family.change(0, Active), Err(StoreError::Superseded { .. })),
            "{later}"
        );
    }
    // A version that was never active does not block another.
    let mut family = Family::of(&[PreActive, PreActive]);
    family.change(1, Suspended).unwrap();
    family.change(0, Active).unwrap();
}

#[test]
fn a_key_that_was_active_has_an_end_of_it() {
    for (path, ended) in [
        (vec![Active, Compromised], true),
        (vec![Active, Suspended, Compromised], true),
        (vec![Active, Suspended, Destroyed], true),
        (vec![Active, Suspended], false),
        (vec![Destroyed], false),
        (vec![Suspended, Compromised], false),
    ] {
        let mut family = Family::of(&[PreActive]);
        for to in &path {
            family.change(0, *to).unwrap();
        }
        let record = &family.0[0];
        assert_eq!(record.deactivated_at.is_some(), ended, "{path:?}");
        let gone = record.state == Destroyed;
        assert_eq!(
            (record.destroyed_at.is_some(), record.wraps.is_empty()),
            (gone, gone),
            "{path:?}"
        );
    }
}

#[test]
fn a_new_key_must_follow() {
    let family = Family::of(&[Active, PreActive]);
    let refused = |edit: &dyn Fn(&mut NewKey)| {
        let mut new = new_key(&family.0, PreActive);
        edit(&mut new);
        new.plan(&family.0, AT).unwrap_err()
    };
    assert!(new_key(&family.0, PreActive).plan(&family.0, AT).is_ok());
    assert!(matches!(
        refused(&|new| new.version = KeyVersion::FIRST),
        StoreError::Conflict
    ));
    assert!(matches!(
        refused(&|new| new.version = KeyVersion::new(4).unwrap()),
        StoreError::Conflict
    ));
    assert!(matches!(
        refused(&|new| new.id = family.0[1].id),
        StoreError::Conflict
    ));
    assert!(matches!(
        refused(&|new| new.id = family.0[0].id),
        StoreError::Conflict
    ));
    assert!(matches!(refused(&|new| new.state = Active), StoreError::Conflict));
    for state in [Compromised, Deactivated, Destroyed, Suspended] {
        assert!(matches!(
            refused(&|new| new.state = state),
            StoreError::Invalid { .. }
        ));
    }
    assert!(matches!(
        refused(&|new| new.scope = Scope::from_bytes([0; 32])),
        StoreError::Invalid { .. }
    ));
    assert!(matches!(
        refused(&|new| new.wraps.clear()),
        StoreError::Invalid { .. }
    ));
    let mut last = family.0[1].clone();
    last.version = KeyVersion::new(i32::MAX.cast_unsigned()).unwrap();
    let new = new_key(&family.0, PreActive).with_version(last.version);
    assert!(
        matches!(new.plan(&[last], AT), Err(StoreError::Conflict)),
        "nothing follows the last number"
    );
}

#[test]
fn a_change_must_name_the_key_and_what_it_was() {
    let family = Family::of(&[Active]);
    let record = &family.0[0];
    let change = StateChange::new(record, Suspended);
    let plan = |change: &StateChange| change.plan(&family.0, AT).map(|writes| writes.len());
    assert!(matches!(plan(&change), Ok(1)));
    let mut wrong = change.clone();
    wrong.scope = Scope::from_bytes([0; 32]);
    assert!(matches!(plan(&wrong), Err(StoreError::NotFound { .. })));
    let mut wrong = change.clone();
    wrong.revision = record.revision.next();
    assert!(matches!(plan(&wrong), Err(StoreError::StaleRevision { .. })));
    for unfit in ["x".repeat(1025), "a\nb".to_owned()] {
        assert!(matches!(
            plan(&change.clone().because(unfit)),
            Err(StoreError::Invalid { .. })
        ));
    }
    assert!(plan(&change.because("x".repeat(1024))).is_ok());
}

#[test]
fn wraps_are_sorted_bounded_and_never_given_to_the_destroyed() {
    let mut family = Family::of(&[PreActive]);
    let plan = |family: &Family, wraps: Vec<StoredWrap>| {
        WrapChange::new(&family.0[0], wraps).plan(family.0.first(), AT)
    };
    let replaced = plan(&family, vec![wrap("b"), wrap("a")]).unwrap();
    assert_eq!(replaced.wraps, [wrap("a"), wrap("b")]);
    assert_eq!(replaced.revision.get(), 2);
    let nine: Vec<_> = (0..9).map(|n| wrap(&format!("kek-{n}"))).collect();
    for wraps in [vec![], nine, vec![wrap("a"), wrap("a")]] {
        assert!(matches!(plan(&family, wraps), Err(StoreError::Invalid { .. })));
    }
    let mut odd = wrap("a");
    odd.wrapped.kek_material = Some("\u{7f}".to_owned());
    assert!(matches!(
        plan(&family, vec![odd]),
        Err(StoreError::Invalid { .. })
    ));
    let change = WrapChange::new(&family.0[0], vec![wrap("a")]);
    assert!(matches!(change.plan(None, AT), Err(StoreError::NotFound { .. })));
    family.change(0, Destroyed).unwrap();
    assert!(matches!(
        plan(&family, vec![wrap("a")]),
        Err(StoreError::Invalid { .. })
    ));
}

#[test]
fn only_what_revives_is_added_where_all_is_destroyed() {
    let mut family = Family::of(&[PreActive, PreActive]);
    family.change(0, Destroyed).unwrap();
    family.add(PreActive);
    family.change(1, Destroyed).unwrap();
    family.change(2, Destroyed).unwrap();
    for state in [PreActive, Active] {
        let new = new_key(&family.0, state);
        assert!(
            matches!(new.plan(&family.0, AT), Err(StoreError::Conflict)),
            "{state}"
        );
    }
    let idle = new_key(&family.0, PreActive).reviving();
    assert!(matches!(idle.plan(&family.0, AT), Err(StoreError::Conflict)));
    let writes = new_key(&family.0, Active).reviving().plan(&family.0, AT).unwrap();
    assert_eq!((writes.len(), writes[0].state), (1, Active));
}

#[test]
fn a_tombstone_is_no_key_and_stands_alone() {
    let id = DataKeyId::generate(1, None).unwrap();
    let tombstone = NewKey::tombstone(id, KeyUsage::Index, &context());
    let record = tombstone.plan(&[], AT).unwrap().remove(0);
    assert!(record.is_tombstone());
    assert_eq!((record.state, record.version), (Destroyed, KeyVersion::FIRST));
    assert_eq!((record.activated_at, record.destroyed_at), (None, Some(AT)));
    assert_eq!(record.wraps, []);
    let family = Family::of(&[Active]);
    let late = NewKey::tombstone(new_key(&family.0, Active).id, KeyUsage::Data, &context());
    assert!(matches!(late.plan(&family.0, AT), Err(StoreError::Conflict)));
    // A version with a key cannot be added as destroyed.
    let mut with_wrap = tombstone.clone();
    with_wrap.wraps.push(wrap("kek"));
    let mut with_key = tombstone;
    with_key.key_check = KeyCheck::from_bytes([1; 32]);
    for new in [with_wrap, with_key] {
        assert!(
            matches!(new.plan(&[], AT), Err(StoreError::Invalid { .. })),
            "{new:?}"
        );
    }
    let mut family = Family::of(&[PreActive]);
    family.change(0, Destroyed).unwrap();
    assert!(!family.0[0].is_tombstone());
}
