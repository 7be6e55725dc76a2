//! The conformance suite of [`KeyManagementService`]: the list of cases, and the macro that mounts them.
//!
//! A provider mounts it in two lines, in a test file of its own:
//!
//! ```ignore
//! mod fixture; // contains an `encx_testkit::KmsFixture`
//! encx_testkit::kms_conformance!(fixture::LocalFixture::start().await);
//! ```
//!
//! The macro owns the list of cases, so a provider cannot leave one out by accident.

mod fixture;
mod support;

use std::fmt::{Debug, Write as _};

pub use self::fixture::KmsFixture;
use self::support::{
    PAIRS, cancel_each_call, check_wrap, concurrent_calls, context, context_of, every_use_fails, fails,
    generate, id, none_unwraps, ok, only_unwraps_under, printed_forms, with_ciphertext,
};

use encx_core::context::EncryptionContext;
use encx_core::key::{DataKey, KeyUsage};
use encx_core::kms::{KekState, KeyManagementService, KmsContext, KmsErrorKind};

/// Mounts the conformance suite of `KeyManagementService`: one `#[test]` for each case.
///
/// The argument is an expression of a type that implements [`KmsFixture`](crate::KmsFixture). It may use `.await`, and is
/// evaluated for each case.
#[macro_export]
macro_rules! kms_conformance {
    (@each $what:ident $args:tt) => {
        $crate::kms_conformance! { @$what $args [
            a_cancelled_call_harms_no_other
            a_context_is_not_confused_by_its_framing
            a_disabled_kek_is_a_key_state_error
            a_foreign_kek_unwraps_nothing
            a_generated_key_is_new_each_time
            a_given_key_wraps_and_unwraps
            a_key_unwraps_under_its_context
            a_missing_or_extra_pair_fails
            a_wrap_with_excess_bytes_fails
            a_wrap_names_its_kek_for_good
            a_wrong_pair_fails
            an_alias_resolves_to_its_kek
            an_unknown_kek_is_a_not_found_error
            another_key_id_or_usage_fails
            debug_output_shows_no_key
            describing_a_kek_tells_its_id_state_and_material
            every_bit_flip_of_a_wrap_fails
            every_truncation_of_a_wrap_fails
            many_concurrent_calls_are_all_right
            rewrapping_keeps_the_key
            rewrapping_under_another_context_fails
            the_default_kek_can_be_used
        ] }
    };
    (@tests ($fixture:expr) [$($case:ident)+]) => {$(
        #[test]
        fn $case() {
            $crate::block_on(async {
                let fixture = $fixture;
                $crate::kms_suite::$case(&fixture).await;
            });
        }
    )+};
    (@table () [$($case:ident)+]) => {
        /// The names of all cases of the suite.
        pub const CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by its name, for tests of the suite itself that must see cases fail.
        ///
        /// # Panics
        ///
        /// If the case fails, or does not exist.
        pub async fn run(case: &str, fixture: &dyn $crate::KmsFixture) {
            match case {
                $(stringify!($case) => $case(fixture).await,)+
                unknown => panic!("there is no case `{unknown}`"),
            }
        }
    };
    ($fixture:expr) => {
        $crate::kms_conformance! { @each tests ($fixture) }
    };
}

kms_conformance! { @each table () }

async fn a_key_unwraps_under_its_context_with(fixture: &dyn KmsFixture, context: &KmsContext) {
    let (key, wrapped) = generate(fixture, context).await;
    let again = ok(fixture.kms().unwrap_key(&wrapped, context).await);
    assert_eq!(again.expose(), key.expose());
}

/// Checks the round trip, for a small context and for the largest one.
pub async fn a_key_unwraps_under_its_context(fixture: &dyn KmsFixture) {
    a_key_unwraps_under_its_context_with(fixture, &context()).await;
    for usage in KeyUsage::ALL {
        a_key_unwraps_under_its_context_with(fixture, &context_of(PAIRS, usage, id())).await;
    }
    let pairs: Vec<_> = (0..encx_core::context::MAX_PAIRS)
        .map(|n| (format!("schlüssel-{n}"), "wert ✓".to_owned()))
        .collect();
    let user = ok(EncryptionContext::from_pairs(pairs));
    a_key_unwraps_under_its_context_with(fixture, &KmsContext::new(&user, KeyUsage::Data, id())).await;
}

/// Checks that no two generated keys and no two wraps are equal.
pub async fn a_generated_key_is_new_each_time(fixture: &dyn KmsFixture) {
    let context = context();
    let mut seen = Vec::new();
    for _ in 0..8 {
        let (key, wrapped) = generate(fixture, &context).await;
        assert_ne!(key.expose(), &[0; 32], "the key is all zeros");
        assert!(!seen.contains(&(*key.expose(), wrapped.ciphertext.clone())));
        assert!(
            seen.iter().all(|(seen, _)| seen != key.expose()),
            "a data key came twice"
        );
        seen.push((*key.expose(), wrapped.ciphertext));
    }
}

/// Checks `wrap_key`: the wrap unwraps to the key, and two wraps of one key differ.
pub async fn a_given_key_wraps_and_unwraps(fixture: &dyn KmsFixture) {
    let (kms, kek, context) = (fixture.kms(), fixture.kek(), context());
    let key = ok(DataKey::generate());
    let first = ok(kms.wrap_key(&kek, &key, &context).await);
    let second = ok(kms.wrap_key(&kek, &key, &context).await);
    assert_ne!(
        first.ciphertext, second.ciphertext,
        "two wraps of one key are the same"
    );
    for wrapped in [first, second] {
        check_wrap(&wrapped, &kek);
        let again = ok(kms.unwrap_key(&wrapped, &context).await);
        assert_eq!(again.expose(), key.expose());
        let other = context_of(&[("purpose", "logs")], KeyUsage::Data, id());
        fails(
            kms.unwrap_key(&wrapped, &other).await,
            KmsErrorKind::Integrity,
            "a given key",
        );
    }
}

/// Checks that unwrapping fails if a pair's key or value was changed, even only in case.
pub async fn a_wrong_pair_fails(fixture: &dyn KmsFixture) {
    let wrong: [&[(&str, &str)]; 7] = [
        &[("purpose", "pii"), ("tenantId", "t-43")],
        &[("purpose", "pii"), ("tenantId", "T-42")],
        &[("purpose", "pii"), ("tenantId", "t-42 ")],
        &[("purpose", "pii"), ("tenantid", "t-42")],
        &[("purpose", "pii"), ("tenant", "t-42")],
        &[("Purpose", "pii"), ("tenantId", "t-42")],
        &[("purpose", "t-42"), ("tenantId", "pii")],
    ];
    only_unwraps_under(fixture, PAIRS, &wrong).await;
    only_unwraps_under(fixture, &[("name", "\u{e9}")], &[&[("name", "e\u{301}")]]).await;
}

/// Checks that unwrapping fails with a missing and with an extra pair.
pub async fn a_missing_or_extra_pair_fails(fixture: &dyn KmsFixture) {
    let wrong: [&[(&str, &str)]; 4] = [
        &[("purpose", "pii")],
        &[("tenantId", "t-42")],
        &[("purpose", "pii"), ("tenantId", "t-42"), ("zone", "1")],
        &[("a", "1"), ("purpose", "pii"), ("tenantId", "t-42")],
    ];
    only_unwraps_under(fixture, PAIRS, &wrong).await;
}

/// Checks contexts that become equal if their parts are joined without lengths.
pub async fn a_context_is_not_confused_by_its_framing(fixture: &dyn KmsFixture) {
    only_unwraps_under(
        fixture,
        &[("a", "bc")],
        &[&[("ab", "c")], &[("bc", "a")], &[("a", "b")]],
    )
    .await;
    only_unwraps_under(
        fixture,
        &[("a", "b"), ("c", "d")],
        &[&[("a", "bcd")], &[("abc", "d")]],
    )
    .await;
    only_unwraps_under(
        fixture,
        &[("a", "b,c=d")],
        &[&[("a", "b"), ("c", "d")], &[("a", "b&c=d")]],
    )
    .await;
    only_unwraps_under(fixture, &[("a", "b\",\"c\":\"d")], &[&[("a", "b"), ("c", "d")]]).await;
}

/// Checks that encx's own pairs are authenticated like the user's.
pub async fn another_key_id_or_usage_fails(fixture: &dyn KmsFixture) {
    let (kms, id_) = (fixture.kms(), id());
    let (_, wrapped) = generate(fixture, &context_of(PAIRS, KeyUsage::Data, id_)).await;
    for usage in [KeyUsage::Index, KeyUsage::Pepper, KeyUsage::Stream] {
        let result = kms.unwrap_key(&wrapped, &context_of(PAIRS, usage, id_)).await;
        fails(result, KmsErrorKind::Integrity, "another usage");
    }
    let result = kms
        .unwrap_key(&wrapped, &context_of(PAIRS, KeyUsage::Data, id()))
        .await;
    fails(result, KmsErrorKind::Integrity, "another key id");
}

/// Checks that every single bit flip of a wrap is detected.
pub async fn every_bit_flip_of_a_wrap_fails(fixture: &dyn KmsFixture) {
    let context = context();
    let (_, wrapped) = generate(fixture, &context).await;
    let flipped = (0..wrapped.ciphertext.len() * 8).map(|bit| {
        let mut bytes = wrapped.ciphertext.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        (format!("bit {bit} flipped"), with_ciphertext(&wrapped, bytes))
    });
    none_unwraps(fixture, &context, flipped.collect()).await;
}

/// Checks every truncation of a wrap, from either end.
pub async fn every_truncation_of_a_wrap_fails(fixture: &dyn KmsFixture) {
    let context = context();
    let (_, wrapped) = generate(fixture, &context).await;
    let bytes = &wrapped.ciphertext;
    let cut = (0..bytes.len()).flat_map(|len| {
        [
            (format!("the first {len} bytes"), bytes[..len].to_vec()),
            (
                format!("the last {len} bytes"),
                bytes[bytes.len() - len..].to_vec(),
            ),
        ]
    });
    let cut = cut.map(|(what, bytes)| (what, with_ciphertext(&wrapped, bytes)));
    none_unwraps(fixture, &context, cut.collect()).await;
}

/// Adds bytes to either end of a wrap.
pub async fn a_wrap_with_excess_bytes_fails(fixture: &dyn KmsFixture) {
    let context = context();
    let (_, wrapped) = generate(fixture, &context).await;
    let bytes = wrapped.ciphertext.as_slice();
    let longer = [&[0][..], &[255; 16], bytes].into_iter().flat_map(|excess| {
        [
            (format!("{} bytes after", excess.len()), [bytes, excess].concat()),
            (format!("{} bytes before", excess.len()), [excess, bytes].concat()),
        ]
    });
    let longer = longer.map(|(what, bytes)| (what, with_ciphertext(&wrapped, bytes)));
    none_unwraps(fixture, &context, longer.collect()).await;
}

/// Checks that a wrap unwraps only with the KEK that made it.
pub async fn a_foreign_kek_unwraps_nothing(fixture: &dyn KmsFixture) {
    let (kms, context) = (fixture.kms(), context());
    let (_, mut wrapped) = generate(fixture, &context).await;
    wrapped.kek = fixture.other_kek();
    let result = kms.unwrap_key(&wrapped, &context).await;
    fails(result, KmsErrorKind::Integrity, "unwrap with another KEK");
    let result = kms.rewrap_key(&wrapped, &context, &fixture.kek()).await;
    fails(result, KmsErrorKind::Integrity, "rewrap from another KEK");
    wrapped.kek = fixture.unknown_kek();
    let result = kms.unwrap_key(&wrapped, &context).await;
    fails(result, KmsErrorKind::NotFound, "unwrap with an unknown KEK");
}

/// Checks that a wrap names the KEK that unwraps it, and that `describe_kek` returns the same name.
pub async fn a_wrap_names_its_kek_for_good(fixture: &dyn KmsFixture) {
    let (kms, context) = (fixture.kms(), context());
    let (_, wrapped) = generate(fixture, &context).await;
    let description = ok(kms.describe_kek(&wrapped.kek).await);
    assert_eq!(description.kek, wrapped.kek);
}

/// Checks that an alias may be used to choose a KEK, and that no result contains it.
pub async fn an_alias_resolves_to_its_kek(fixture: &dyn KmsFixture) {
    let Some(alias) = fixture.alias() else { return };
    let (kms, kek, context) = (fixture.kms(), fixture.kek(), context());
    assert_ne!(alias, kek, "the fixture's alias is the KEK's own name");
    assert_eq!(ok(kms.describe_kek(&alias).await).kek, kek);
    let made = ok(kms.generate_data_key(&alias, &context).await);
    let given = ok(kms.wrap_key(&alias, &made.key, &context).await);
    let other = ok(kms.wrap_key(&fixture.other_kek(), &made.key, &context).await);
    let moved = ok(kms.rewrap_key(&other, &context, &alias).await);
    for wrapped in [made.wrapped, given, moved] {
        check_wrap(&wrapped, &kek);
        assert_eq!(
            ok(kms.unwrap_key(&wrapped, &context).await).expose(),
            made.key.expose()
        );
    }
}

/// Checks that a rewrap moves the same key to the other KEK, and that the old wrap still works.
pub async fn rewrapping_keeps_the_key(fixture: &dyn KmsFixture) {
    let (kms, context) = (fixture.kms(), context());
    let (key, wrapped) = generate(fixture, &context).await;
    for to in [fixture.other_kek(), fixture.kek()] {
        let moved = ok(kms.rewrap_key(&wrapped, &context, &to).await);
        check_wrap(&moved, &to);
        assert_ne!(moved.ciphertext, wrapped.ciphertext);
        assert_eq!(ok(kms.unwrap_key(&moved, &context).await).expose(), key.expose());
    }
    assert_eq!(
        ok(kms.unwrap_key(&wrapped, &context).await).expose(),
        key.expose()
    );
}

/// Checks that a rewrap authenticates the context and binds its result to the same context.
pub async fn rewrapping_under_another_context_fails(fixture: &dyn KmsFixture) {
    let (kms, context, other) = (fixture.kms(), context(), context());
    let (_, wrapped) = generate(fixture, &context).await;
    let result = kms.rewrap_key(&wrapped, &other, &fixture.other_kek()).await;
    fails(result, KmsErrorKind::Integrity, "rewrap under another context");
    let moved = ok(kms.rewrap_key(&wrapped, &context, &fixture.other_kek()).await);
    let result = kms.unwrap_key(&moved, &other).await;
    fails(
        result,
        KmsErrorKind::Integrity,
        "a moved wrap under another context",
    );
    let mut damaged = wrapped;
    damaged.ciphertext.pop();
    let result = kms.rewrap_key(&damaged, &context, &fixture.other_kek()).await;
    fails(result, KmsErrorKind::Integrity, "rewrap of a damaged wrap");
}

/// Checks every operation with a KEK that does not exist.
pub async fn an_unknown_kek_is_a_not_found_error(fixture: &dyn KmsFixture) {
    let (kms, context, unknown) = (fixture.kms(), context(), fixture.unknown_kek());
    let (key, mut wrapped) = generate(fixture, &context).await;
    every_use_fails(fixture, &unknown, &key, &context, KmsErrorKind::NotFound).await;
    fails(
        kms.describe_kek(&unknown).await,
        KmsErrorKind::NotFound,
        "describe",
    );
    let result = kms.rewrap_key(&wrapped, &context, &unknown).await;
    fails(result, KmsErrorKind::NotFound, "rewrap to it");
    wrapped.kek = unknown;
    fails(
        kms.unwrap_key(&wrapped, &context).await,
        KmsErrorKind::NotFound,
        "unwrap",
    );
    let result = kms.rewrap_key(&wrapped, &context, &fixture.kek()).await;
    fails(result, KmsErrorKind::NotFound, "rewrap from it");
}

/// Checks that every operation with a disabled KEK fails, and that other KEKs still work.
pub async fn a_disabled_kek_is_a_key_state_error(fixture: &dyn KmsFixture) {
    let (kms, context, kek, other) = (fixture.kms(), context(), fixture.kek(), fixture.other_kek());
    let (key, wrapped) = generate(fixture, &context).await;
    let elsewhere = ok(kms.wrap_key(&other, &key, &context).await);
    fixture.disable(&kek).await;
    every_use_fails(fixture, &kek, &key, &context, KmsErrorKind::KeyState).await;
    fails(
        kms.unwrap_key(&wrapped, &context).await,
        KmsErrorKind::KeyState,
        "unwrap",
    );
    let result = kms.rewrap_key(&wrapped, &context, &other).await;
    fails(result, KmsErrorKind::KeyState, "rewrap from it");
    let result = kms.rewrap_key(&elsewhere, &context, &kek).await;
    fails(result, KmsErrorKind::KeyState, "rewrap to it");
    assert_eq!(ok(kms.describe_kek(&kek).await).state, KekState::Disabled);
    assert_eq!(
        ok(kms.unwrap_key(&elsewhere, &context).await).expose(),
        key.expose()
    );
}

/// Checks that `describe_kek` agrees with a wrap.
pub async fn describing_a_kek_tells_its_id_state_and_material(fixture: &dyn KmsFixture) {
    let (_, wrapped) = generate(fixture, &context()).await;
    for kek in [fixture.kek(), fixture.other_kek()] {
        let description = ok(fixture.kms().describe_kek(&kek).await);
        assert_eq!(description.kek, kek);
        assert_eq!(description.state, KekState::Enabled);
        if kek == wrapped.kek && description.current_material.is_some() {
            assert_eq!(description.current_material, wrapped.kek_material);
        }
    }
}

/// Checks that the default KEK, if there is one, exists and wraps.
pub async fn the_default_kek_can_be_used(fixture: &dyn KmsFixture) {
    let (kms, context) = (fixture.kms(), context());
    assert!(!kms.provider().is_empty());
    let Some(kek) = kms.default_kek() else { return };
    let made = ok(kms.generate_data_key(kek, &context).await);
    assert_eq!(
        ok(kms.unwrap_key(&made.wrapped, &context).await).expose(),
        made.key.expose()
    );
}

/// Searches everything printable for a key's bytes: as hex, as a list of numbers, as base64.
pub async fn debug_output_shows_no_key(fixture: &dyn KmsFixture) {
    let (kms, context, kek) = (fixture.kms(), context(), fixture.kek());
    let made = ok(kms.generate_data_key(&kek, &context).await);
    let again = ok(kms.unwrap_key(&made.wrapped, &context).await);
    let other = support::context();
    let integrity = fails(
        kms.unwrap_key(&made.wrapped, &other).await,
        KmsErrorKind::Integrity,
        "",
    );
    let unknown = kms.wrap_key(&fixture.unknown_kek(), &made.key, &context).await;
    let unknown = fails(unknown, KmsErrorKind::NotFound, "");
    let mut printed = String::new();
    for thing in [
        &kms as &dyn Debug,
        &made,
        &made.wrapped,
        &again,
        &integrity,
        &unknown,
    ] {
        ok(write!(printed, "{thing:?}{thing:#?}"));
    }
    ok(write!(printed, "{integrity}{unknown}"));
    printed.retain(|c| !c.is_whitespace());
    for form in printed_forms(made.key.expose()) {
        assert!(!printed.contains(&form), "Debug shows a data key");
    }
}

/// Generates, rewraps and unwraps in 64 tasks at once, each under its own context.
pub async fn many_concurrent_calls_are_all_right(fixture: &dyn KmsFixture) {
    concurrent_calls(fixture, 64).await.join_all().await;
}

/// Cancels calls of every kind early and late, first alone and then while others run.
pub async fn a_cancelled_call_harms_no_other(fixture: &dyn KmsFixture) {
    let (kms, context) = (fixture.kms(), context());
    let (key, wrapped) = generate(fixture, &context).await;
    let still_right = async || {
        let again = ok(kms.unwrap_key(&wrapped, &context).await);
        assert_eq!(again.expose(), key.expose());
    };
    // Alone, so that other calls cannot hide what a cancelled call leaves behind.
    for polls in 1..=4 {
        cancel_each_call(fixture, polls).await;
        still_right().await;
    }
    let running = concurrent_calls(fixture, 16).await;
    let mut aborted = concurrent_calls(fixture, 16).await;
    for polls in 1..=4 {
        cancel_each_call(fixture, polls).await;
    }
    aborted.abort_all();
    while aborted.join_next().await.is_some() {}
    running.join_all().await;
    still_right().await;
}
