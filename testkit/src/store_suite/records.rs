//! Records read back as written.

use std::sync::Arc;

use encx_core::key::{
    KekId, KeyCheck, KeyState, KeyUsage, KeyVersion, KmsName, MAX_WRAPS, Scope, WrappedKey,
};
use encx_core::store::{KeyQuery, KeyRecord, NewKey, Revision, StoredWrap};

use super::StoreFixture;
use super::support::{Family, change, check_bytes, list, new_id, wrap};

/// Checks that a record matches the request, field by field.
fn assert_is(record: &KeyRecord, new: &NewKey) {
    let mut wraps = new.wraps.clone();
    wraps.sort_by(|a, b| (&a.kms, &a.wrapped.kek).cmp(&(&b.kms, &b.wrapped.kek)));
    assert_eq!(record.id, new.id);
    assert_eq!(record.scope, new.scope);
    assert_eq!(record.usage, new.usage);
    assert_eq!(record.version, new.version);
    assert_eq!(record.state, new.state);
    assert_eq!(record.suspended_from, None);
    assert_eq!(record.context, new.context.to_map());
    assert_eq!(record.verified_context().unwrap(), new.context);
    assert_eq!(record.key_check.to_bytes(), new.key_check.to_bytes());
    assert_eq!(record.revision, Revision::FIRST);
    assert_eq!(record.changed_at, record.created_at);
    let activated = (new.state == KeyState::Active).then_some(record.created_at);
    assert_eq!(record.activated_at, activated);
    assert_eq!(record.deactivated_at, None);
    assert_eq!(record.destroyed_at, None);
    assert_eq!(record.wraps, wraps, "the wraps, sorted by KMS and KEK");
}

pub(super) async fn every_field_comes_back_bit_by_bit(fixture: Arc<dyn StoreFixture>) {
    let (store, other) = (fixture.open().await, fixture.open().await);
    for usage in KeyUsage::ALL {
        for state in [KeyState::Active, KeyState::PreActive] {
            let family = Family::of(usage, &[("tenantId", "t-42"), ("state", state.name())]);
            let mut new = family.next(state);
            new.wraps.clear();
            // Out of order on purpose; with every byte value; with and without material, under two names.
            for number in (0..MAX_WRAPS).rev() {
                let kek = KekId::new(format!("arn:aws:kms:eu-1:1:key/{number}")).unwrap();
                let seed = u8::try_from(number).unwrap();
                let mut wrapped = WrappedKey::new(kek, (0..=255).map(|byte: u8| byte ^ seed).collect());
                if number % 2 == 0 {
                    wrapped = wrapped.with_material(format!("material-{number}"));
                }
                let kms = if number % 3 == 0 { "eu" } else { "default" };
                new.wraps
                    .push(StoredWrap::new(KmsName::new(kms).unwrap(), wrapped));
            }
            let inserted = store.insert(&new).await.unwrap();
            assert_is(&inserted, &new);
            let expected = [inserted];
            for handle in [&store, &other] {
                assert_eq!(handle.load(&[new.scope]).await.unwrap(), expected);
                assert_eq!(handle.get(&[new.id]).await.unwrap(), expected);
                let query = KeyQuery::new(10).scope(new.scope);
                assert_eq!(list(handle, &query).await, expected);
            }
        }
    }
}

pub(super) async fn the_longest_and_strangest_texts_come_back(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let strange = [
        "e\u{301} is not \u{e9}",
        "\u{202e}right to left",
        "\u{feff}\u{fffd}\u{ffff}\u{10ffff}",
        r#"{"a": "\u0000", 'b': $1, %s, ?1, :x, \n}"#,
        "null",
        "  spaces stay  ",
        "NULL; DROP TABLE encx.data_keys; --",
        "\u{1f511}",
    ];
    let pairs: Vec<_> = strange.iter().map(|text| (*text, *text)).collect();
    let mut new = Family::of(KeyUsage::Data, &pairs).next(KeyState::Active);
    new.wraps = vec![StoredWrap::new(
        KmsName::new("\u{1f511}'\"\\").unwrap(),
        WrappedKey::new(KekId::new("alias/\u{202e}'\"\\ %").unwrap(), vec![0]).with_material(""),
    )];
    assert_is(&store.insert(&new).await.unwrap(), &new);
    assert_is(&store.load(&[new.scope]).await.unwrap()[0], &new);

    let longest = "\u{10fffe}".repeat(384);
    let keys: Vec<_> = (0..8)
        .map(|n| format!("{n}{}", "\u{10ffff}".repeat(383)))
        .collect();
    let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), longest.as_str())).collect();
    let mut new = Family::of(KeyUsage::Pepper, &pairs).next(KeyState::Active);
    // No two adjacent bytes are equal, so that compression cannot make them fit.
    let noise = |len: usize, seed: usize| -> String {
        let digit =
            |n: usize| char::from_digit(u32::try_from((n * n / 7 + n * seed) % 36).unwrap(), 36).unwrap();
        (0..len).map(digit).collect()
    };
    new.wraps = (0..MAX_WRAPS)
        .map(|number| {
            let kek = KekId::new(noise(2048, number + 1)).unwrap();
            let bytes = noise(WrappedKey::MAX_LEN, number + 3).into_bytes();
            let wrapped = WrappedKey::new(kek, bytes).with_material(noise(256, number + 5));
            StoredWrap::new(KmsName::new(noise(64, number + 7)).unwrap(), wrapped)
        })
        .collect();
    assert_is(&store.insert(&new).await.unwrap(), &new);
    assert_is(&store.load(&[new.scope]).await.unwrap()[0], &new);
    let (first, last) = (&new.wraps[0], &new.wraps[7]);
    for stored in [first, last] {
        let query = KeyQuery::new(10).wrapped_by(stored.kms.clone(), stored.wrapped.kek.clone());
        assert_eq!(list(&store, &query).await.len(), 1, "found by its longest KEK id");
    }
}

pub(super) async fn every_state_comes_back(fixture: Arc<dyn StoreFixture>) {
    use KeyState::{Active, Compromised, Deactivated, Destroyed, PreActive, Suspended};
    let (store, other) = (fixture.open().await, fixture.open().await);
    let mut family = Family::new("states");
    let mut record = family.add(&store, PreActive).await;
    let path = [
        (Suspended, Some(PreActive)),
        (PreActive, None),
        (Active, None),
        (Suspended, Some(Active)),
        (Active, None),
    ];
    for (to, suspended_from) in path {
        record = change(&store, &record, to).await.unwrap();
        assert_eq!((record.state, record.suspended_from), (to, suspended_from));
        assert_eq!(family.load(&other).await, [record.clone()]);
    }
    // Promoting the next version deactivates the first.
    family.add(&store, PreActive).await;
    let second = family.load(&store).await.remove(1);
    change(&store, &second, Active).await.unwrap();
    record = family.load(&other).await.remove(0);
    assert_eq!((record.state, record.suspended_from), (Deactivated, None));
    let path = [
        (Suspended, Some(Deactivated)),
        (Deactivated, None),
        (Compromised, None),
        (Destroyed, None),
    ];
    for (to, suspended_from) in path {
        record = change(&store, &record, to).await.unwrap();
        assert_eq!((record.state, record.suspended_from), (to, suspended_from));
        assert_eq!(family.load(&other).await[0], record);
        assert_eq!(other.get(&[record.id]).await.unwrap(), [record.clone()]);
    }
    assert_eq!(record.revision.get(), 11, "every change counts, and nothing else");
}

pub(super) async fn two_handles_agree(fixture: Arc<dyn StoreFixture>) {
    let handles = [fixture.open().await, fixture.open().await];
    let mut family = Family::new("handles");
    let mut record = family.add(&handles[0], KeyState::Active).await;
    for round in 0..6 {
        let (writer, reader) = (&handles[round % 2], &handles[(round + 1) % 2]);
        assert_eq!(family.load(reader).await, [record.clone()]);
        let to = if round % 2 == 0 {
            KeyState::Suspended
        } else {
            KeyState::Active
        };
        record = change(writer, &record, to).await.unwrap();
        assert_eq!(family.load(reader).await, [record.clone()]);
        assert_eq!(reader.get(&[record.id]).await.unwrap(), [record.clone()]);
    }
}

pub(super) async fn loading_sorts_and_leaves_out_what_is_unknown(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut families: Vec<_> = (0..5).map(|n| Family::new(&format!("t-{n}"))).collect();
    let mut expected = Vec::new();
    for round in 0..3 {
        for family in &mut families {
            let state = if round == 0 {
                KeyState::Active
            } else {
                KeyState::PreActive
            };
            expected.push(family.add(&store, state).await);
        }
    }
    let unknown = Family::new("unknown");
    let mut scopes: Vec<_> = families.iter().map(Family::scope).collect();
    scopes.extend([unknown.scope(), scopes[0]]);
    expected.sort_by_key(|record| (record.scope, record.version));
    assert_eq!(
        store.load(&scopes).await.unwrap(),
        expected,
        "sorted by scope and version, each once"
    );
    assert_eq!(
        store.load(&scopes[..1]).await.unwrap().len(),
        3,
        "only what was asked for"
    );
    let mut ids: Vec<_> = expected.iter().map(|record| record.id).collect();
    ids.push(new_id(None));
    ids.push(ids[0]);
    expected.sort_by_key(|record| record.id);
    assert_eq!(
        store.get(&ids).await.unwrap(),
        expected,
        "sorted by id, each once"
    );
}

pub(super) async fn nothing_asked_is_nothing_answered(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    assert!(
        store
            .load(&[Family::new("unknown").scope()])
            .await
            .unwrap()
            .is_empty()
    );
    assert!(store.get(&[new_id(None)]).await.unwrap().is_empty());
    Family::new("a").add(&store, KeyState::Active).await;
    assert!(store.load(&[]).await.unwrap().is_empty());
    assert!(store.get(&[]).await.unwrap().is_empty());
    assert!(store.replace_wraps(&[]).await.unwrap().is_empty());
}

pub(super) async fn many_scopes_and_ids_fit_one_call(fixture: Arc<dyn StoreFixture>) {
    // More than any database binds in one statement: 65 535 in PostgreSQL, 32 766 in SQLite.
    const MANY: u32 = 70_000;
    let store = fixture.open().await;
    let mut expected = Vec::new();
    for n in 0..3 {
        expected.push(Family::new(&format!("t-{n}")).add(&store, KeyState::Active).await);
    }
    let filler = |n: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        Scope::from_bytes(bytes)
    };
    let mut scopes: Vec<_> = (0..MANY).map(filler).collect();
    let mut ids: Vec<_> = vec![new_id(None)];
    for _ in 1..MANY {
        ids.push(new_id(ids.last().copied()));
    }
    for (place, record) in [0, 1500, 69_999].into_iter().zip(&expected) {
        scopes[place] = record.scope;
        ids[place] = record.id;
    }
    expected.sort_by_key(|record| record.scope);
    assert_eq!(store.load(&scopes).await.unwrap(), expected);
    expected.sort_by_key(|record| record.id);
    assert_eq!(store.get(&ids).await.unwrap(), expected);

    let new = NewKey::new(
        ids[1],
        KeyUsage::Data,
        &Family::new("t-9").context,
        KeyCheck::from_bytes(check_bytes(ids[1])),
    )
    .with_version(KeyVersion::FIRST)
    .with_wrap(wrap("kek", 1));
    store.insert(&new).await.unwrap();
    assert_eq!(store.get(&ids).await.unwrap().len(), 4);
}
