//! Blind indexes: one key per context, terms across rotations, states of keys, batches.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::time::Duration;

use encx::keys::{KeyManager, KeyState, KeyUsage};
use encx::search::{BlindIndex, IndexError, IndexField, IndexPart, IndexValue, Normalizer};
use encx::{Crypto, EncryptionContext, Error};
use encx_test_support::{HarnessExt, context};
use encx_testkit::{Harness, ManualClock, block_on};

const EMAIL: IndexField = IndexField::new("users", "email", 64).normalize(Normalizer::Email);
const NUMBER: IndexField = IndexField::new("users", "number", 32);
const NAME_BORN: IndexField = IndexField::compound(
    "users",
    &[
        IndexPart::new("name").normalize(Normalizer::CaseFold),
        IndexPart::new("born"),
    ],
    64,
);
const ADA: &str = "ada@example.org";

fn keys(crypto: &Crypto) -> KeyManager {
    crypto.key_manager().for_usage(KeyUsage::Index)
}

async fn index(crypto: &Crypto, context: &EncryptionContext, value: &str) -> BlindIndex {
    crypto.blind_index(context, &EMAIL, value).await.unwrap()
}

#[test]
fn one_process_finds_what_another_indexed() {
    block_on(async {
        let harness = Harness::new().await;
        let (writer, reader) = (harness.process().await, harness.process().await);
        let stored = index(&writer, &context("a"), "Ada@Example.org").await;
        let terms = reader.index_terms(&context("a"), &EMAIL, ADA).await.unwrap();
        assert_eq!(terms.as_slice(), [stored]);
        assert!(terms.contains(&stored) && terms.len() == 1);
        let other = reader
            .index_terms(&context("a"), &EMAIL, "eve@example.org")
            .await
            .unwrap();
        assert!(!other.contains(&stored));

        let key = keys(&writer).list(&context("a")).await.unwrap().remove(0);
        assert_eq!(stored.key_tag(), BlindIndex::tag_of(key.id));
        assert_eq!(stored.as_bytes()[..4], key.id.to_bytes()[12..]);
        // Each key serves one usage: no key for encryption was created.
        let data = writer.key_manager().list(&context("a")).await.unwrap();
        assert!(data.is_empty());
    });
}

#[test]
fn contexts_have_indexes_of_their_own() {
    block_on(async {
        let crypto = Harness::new().await.process().await;
        let [a, b] = [context("a"), context("b")];
        let stored = index(&crypto, &a, ADA).await;
        assert!(
            !crypto
                .index_terms(&b, &EMAIL, ADA)
                .await
                .unwrap()
                .contains(&stored)
        );
        assert_ne!(
            index(&crypto, &b, ADA).await.as_bytes()[4..],
            stored.as_bytes()[4..]
        );
    });
}

#[test]
fn to_search_makes_no_key_and_finds_nothing_without_one() {
    block_on(async {
        let harness = Harness::new().await;
        let crypto = harness.process().await;
        let terms = crypto.index_terms(&context("a"), &EMAIL, ADA).await.unwrap();
        assert!(terms.is_empty());
        assert_eq!(crypto.stats().kms_calls, 0);
        assert!(keys(&crypto).list(&context("a")).await.unwrap().is_empty());

        let strict = harness
            .builder()
            .create_on_first_use(false)
            .build()
            .await
            .unwrap();
        let error = strict.blind_index(&context("a"), &EMAIL, ADA).await.unwrap_err();
        assert!(matches!(error, Error::NoKeys), "{error}");
    });
}

#[test]
fn after_a_rotation_old_and_new_rows_are_found() {
    block_on(async {
        let harness = Harness::new().await;
        let (crypto, other) = (harness.process().await, harness.process().await);
        let a = context("a");
        let old = index(&crypto, &a, ADA).await;
        assert!(!crypto.needs_reindex(&a, &old).await.unwrap());
        keys(&crypto).rotate(&a).await.unwrap();
        let new = index(&crypto, &a, ADA).await;
        assert_ne!(old, new);
        assert_ne!(old.as_bytes()[4..], new.as_bytes()[4..]);
        for process in [&crypto, &other] {
            let terms = process.index_terms(&a, &EMAIL, ADA).await.unwrap();
            assert_eq!(terms.as_slice(), [old, new]);
        }
        assert!(crypto.needs_reindex(&a, &old).await.unwrap());
        assert!(!crypto.needs_reindex(&a, &new).await.unwrap());
    });
}

/// Searches and writes of several processes, which see each other's changes only by polls, a minute apart.
#[tokio::test]
async fn a_rotation_that_was_prepared_hides_no_row_at_any_time() {
    let harness = Harness::new().await;
    let (writer, reader, a) = (harness.crypto(), harness.process().await, context("a"));
    let found = async || reader.index_terms(&a, &EMAIL, ADA).await.unwrap();
    // Also for the first key: a process that recently found none looks again.
    assert!(found().await.is_empty());
    let old = index(writer, &a, ADA).await;
    // Its second use marks it as in use.
    for _ in 0..2 {
        assert_eq!(found().await.as_slice(), [old]);
    }

    let next = keys(writer).prepare(&a).await.unwrap().id;
    harness.clock().advance(Duration::from_secs(60)).await;
    let promoted = keys(writer).rotate(&a).await.unwrap();
    assert_eq!(promoted.id, next);
    let new = index(writer, &a, ADA).await;
    assert_ne!(new, old);
    // Immediately after.
    harness.kms().reset_calls();
    assert_eq!(found().await.as_slice(), [old, new]);
    harness.assert_kms_calls(0);
}

/// The same versions count whether the keys are in memory or not.
#[test]
fn states_decide_which_versions_are_searched() {
    block_on(async {
        let harness = Harness::new().await;
        let (crypto, a) = (harness.process().await, context("a"));
        let first = index(&crypto, &a, ADA).await;
        let old = keys(&crypto).list(&a).await.unwrap().remove(0).id;
        keys(&crypto).rotate(&a).await.unwrap();
        let second = index(&crypto, &a, ADA).await;
        let next = keys(&crypto).prepare(&a).await.unwrap().id;
        let third = crypto.blind_index_under(&a, &EMAIL, ADA, next).await.unwrap();
        // It promotes nothing, and does not create a second waiting version.
        assert_eq!(index(&crypto, &a, ADA).await, second);
        assert_eq!(keys(&crypto).prepare(&a).await.unwrap().id, next);

        let terms = async |expected: &[BlindIndex]| {
            for process in [&crypto, &harness.process().await] {
                let found = process.index_terms(&a, &EMAIL, ADA).await.unwrap();
                assert_eq!(found.as_slice(), expected);
            }
        };
        terms(&[first, second, third]).await;
        keys(&crypto)
            .set_state(&a, old, KeyState::Suspended)
            .await
            .unwrap();
        terms(&[second, third]).await;
        let error = crypto.blind_index_under(&a, &EMAIL, ADA, old).await.unwrap_err();
        assert!(matches!(error, Error::Suspended { .. }), "{error}");
        keys(&crypto)
            .set_state(&a, old, KeyState::Deactivated)
            .await
            .unwrap();
        terms(&[first, second, third]).await;
        keys(&crypto).destroy_with_data(&a, old, "a test").await.unwrap();
        terms(&[second, third]).await;
        assert_eq!(keys(&crypto).rotate(&a).await.unwrap().id, next);
        assert_eq!(index(&crypto, &a, ADA).await, third);
    });
}

#[test]
fn a_version_of_another_context_is_unknown() {
    block_on(async {
        let crypto = Harness::new().await.process().await;
        let [a, b] = [context("a"), context("b")];
        index(&crypto, &a, ADA).await;
        index(&crypto, &b, ADA).await;
        let of_b = keys(&crypto).list(&b).await.unwrap().remove(0).id;
        let error = crypto.blind_index_under(&a, &EMAIL, ADA, of_b).await.unwrap_err();
        assert!(
            matches!(error, Error::UnknownKey { id, .. } if id == of_b),
            "{error}"
        );
    });
}

#[test]
fn a_hot_term_makes_no_call_and_a_batch_loads_together() {
    block_on(async {
        let harness = Harness::new().await;
        let writer = harness.process().await;
        let [a, b] = [context("a"), context("b")];
        let stored = [index(&writer, &a, ADA).await, index(&writer, &b, ADA).await];
        let crypto = harness.process().await;
        let value: &(dyn IndexValue + Sync) = &ADA;
        let items = [
            (&a, &EMAIL, value),
            (&a, &NUMBER, &7_i64),
            (&b, &EMAIL, value),
            (&b, &EMAIL, &7_i64),
            (&a, &NAME_BORN, &("Ada", 1815_i32)),
        ];
        let done = crypto.blind_index_many(items).await;
        let before = crypto.stats();
        assert_eq!((before.kms_calls, before.keys), (2, 2));
        assert_eq!(*done[0].as_ref().unwrap(), stored[0]);
        assert_eq!(*done[2].as_ref().unwrap(), stored[1]);
        assert!(matches!(done[3], Err(Error::Index(IndexError::NotText { .. }))));
        assert_eq!(
            *done[4].as_ref().unwrap(),
            crypto
                .blind_index(&a, &NAME_BORN, ("ADA", 1815_u64))
                .await
                .unwrap()
        );
        let terms = crypto.index_terms_many(items).await;
        assert_eq!(terms[2].as_ref().unwrap().as_slice(), [stored[1]]);
        assert!(terms[3].is_err());
        let after = crypto.stats();
        assert_eq!((after.kms_calls, after.misses), (before.kms_calls, before.misses));
        assert!(after.hits >= before.hits + 5);
    });
}

const ORDER: Normalizer = Normalizer::custom("order-number", 1, |text| {
    let number: String = text.chars().filter(|c| *c != '-').collect();
    number
        .starts_with(|c: char| c.is_ascii_alphabetic())
        .then(|| number.to_uppercase())
});

/// Stored values, the spellings that find them, and the spellings that do not.
#[test]
fn every_normaliser_finds_what_it_makes_equal_and_nothing_else() {
    let known: [(Normalizer, &str, &[&str], &[&str]); 7] = [
        (
            Normalizer::Exact,
            "Zoë",
            &["Zo\u{eb}"],
            &["Zoe\u{308}", "zoë", "Zoë ", "Zoe"],
        ),
        (
            Normalizer::Trim,
            "\u{a0}Zoë\t",
            &["Zoë", "\u{3000}Zoë\r\n"],
            &["zoë", "Zo ë", "Zoe\u{308}"],
        ),
        (
            Normalizer::Lowercase,
            "ÅNGSTRÖM",
            &["ångström", " Ångström "],
            &["angstrom", "A\u{30a}ngström", "ÅNGSTRØM"],
        ),
        (
            Normalizer::CaseFold,
            "Straße",
            &[
                "STRASSE",
                "strasse",
                "ＳＴＲＡＳＳＥ",
                "\u{17f}traſſe",
                "STRA\u{1e9e}E",
            ],
            &["Strase", "Stra ße"],
        ),
        (
            Normalizer::Email,
            "Ada.Lovelace+x@BÜCHER.example",
            &[
                " ada.lovelace+X@bücher.EXAMPLE\n",
                "ada.lovelace+x@bu\u{308}cher.example",
                "ａｄａ.lovelace＋x＠bücher.example",
            ],
            &[
                "adalovelace+x@bücher.example",
                "ada.lovelace@bücher.example",
                "ada.lovelace+x@xn--bcher-kva.example",
            ],
        ),
        (
            Normalizer::Phone,
            "+49 (151) 123-45.67",
            &[
                "+491511234567",
                "＋４９ 151／1234567",
                "+49\u{2011}151\u{2013}1234567",
            ],
            &["01511234567", "491511234567", "+49 151 123456"],
        ),
        (ORDER, "ab-12é", &["AB12É", "a-b-1-2é"], &["ab-13é", "ab12e"]),
    ];
    block_on(async {
        let crypto = Harness::new().await.process().await;
        let a = context("a");
        for (normalizer, stored, equal, different) in known {
            let field = IndexField::new("t", "c", 128).normalize(normalizer);
            let kept = crypto.blind_index(&a, &field, stored).await.unwrap();
            let searches = equal.iter().map(|text| (text, true));
            for (text, is_found) in searches.chain(different.iter().map(|text| (text, false))) {
                let terms = crypto.index_terms(&a, &field, text).await.unwrap();
                assert_eq!(terms.contains(&kept), is_found, "{normalizer:?}: {text:?}");
                assert_eq!(
                    field.is_same(stored, text),
                    Ok(is_found),
                    "{normalizer:?}: {text:?}"
                );
            }
        }
        let refused = IndexField::new("t", "c", 128).normalize(ORDER);
        let refused = crypto.blind_index(&a, &refused, "12-ab").await;
        assert!(matches!(
            refused,
            Err(Error::Index(IndexError::NotNormalized {
                normalizer: "order-number",
                ..
            }))
        ));
    });
}

#[test]
fn a_compound_index_finds_what_is_equal_in_all_parts() {
    block_on(async {
        let crypto = Harness::new().await.process().await;
        let a = context("a");
        let kept = crypto
            .blind_index(&a, &NAME_BORN, ("Straße", 1815_i32))
            .await
            .unwrap();
        let is_found = async |name: &str, born: i64| {
            let terms = crypto.index_terms(&a, &NAME_BORN, (name, born)).await.unwrap();
            terms.contains(&kept)
        };
        assert!(is_found("STRASSE", 1815).await);
        for (name, born) in [("STRASSE", 1816), ("STRASS", 1815), ("STRASSE1815", 1)] {
            assert!(!is_found(name, born).await, "{name} {born}");
        }
        assert_eq!(NAME_BORN.is_same(("a", 1), ("A", 1)), Ok(true));
        assert_eq!(NAME_BORN.is_same(("a", 1), ("A", 2)), Ok(false));
        let too_few = crypto.index_terms(&a, &NAME_BORN, "Straße").await;
        assert!(matches!(too_few, Err(Error::Index(IndexError::Parts { .. }))));
    });
}

/// Index keys leave memory and return like data keys.
#[test]
fn an_index_key_lives_as_long_as_any() {
    block_on(async {
        let harness = Harness::new().await;
        let clock = ManualClock::new();
        let crypto = harness
            .builder()
            .clock(clock.clone())
            .refresh_ahead(0.0)
            .build()
            .await
            .unwrap();
        let a = context("a");
        let stored = index(&crypto, &a, ADA).await;
        assert_eq!(crypto.stats().kms_calls, 1);
        clock.advance(Duration::from_secs(30 * 60));
        assert_eq!(index(&crypto, &a, ADA).await, stored);
        assert_eq!(crypto.stats().kms_calls, 1);
        clock.advance(Duration::from_secs(31 * 60));
        let terms = crypto.index_terms(&a, &EMAIL, ADA).await.unwrap();
        assert_eq!(terms.as_slice(), [stored]);
        assert_eq!(crypto.stats().kms_calls, 2);
        harness.kms().fail_next(1, encx::kms::KmsErrorKind::AccessDenied);
        clock.advance(Duration::from_secs(61 * 60));
        crypto.index_terms(&a, &EMAIL, ADA).await.unwrap_err();
        crypto.shutdown().await;
        assert_eq!(crypto.stats().keys, 0);
    });
}

#[test]
fn values_that_cannot_be_indexed_ask_for_no_key() {
    block_on(async {
        let crypto = Harness::new().await.process().await;
        let a = context("a");
        for refused in [
            crypto.blind_index(&a, &EMAIL, "ada").await.map(drop),
            crypto.index_terms(&a, &EMAIL, "ada@").await.map(drop),
        ] {
            assert!(matches!(refused, Err(Error::Index(_))));
        }
        assert_eq!(crypto.stats().kms_calls + crypto.stats().store_loads, 0);
    });
}

#[test]
fn an_imported_key_gives_the_terms_that_it_gave_elsewhere() {
    block_on(async {
        let harness = Harness::new().await;
        let (crypto, other) = (harness.process().await, harness.process().await);
        let [a, b] = [context("a"), context("b")];
        let key = || encx::kms::DataKey::copy_from(&[9; 32]).unwrap();
        let first = keys(&crypto).import(&a, key()).await.unwrap();
        assert_eq!((first.state, first.usage), (KeyState::Active, KeyUsage::Index));
        keys(&other).import(&b, key()).await.unwrap();
        let of = async |crypto: &Crypto, context| index(crypto, context, ADA).await.as_bytes()[4..].to_vec();
        assert_eq!(of(&crypto, &a).await, of(&other, &b).await);
        // It is promoted as a further version, and the previous one still finds rows.
        let old = index(&crypto, &a, ADA).await;
        let second = keys(&crypto)
            .import(&a, encx::kms::DataKey::copy_from(&[8; 32]).unwrap())
            .await
            .unwrap();
        assert_eq!((second.state, second.version.get()), (KeyState::Active, 2));
        let terms = other.index_terms(&a, &EMAIL, ADA).await.unwrap();
        assert_eq!(terms.as_slice(), [old, index(&crypto, &a, ADA).await]);
    });
}
