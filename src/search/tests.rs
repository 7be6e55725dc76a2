use std::borrow::Cow;
use std::sync::Arc;

use encx_core::blind_index::IndexTerms;
use encx_core::key::{DataKey, Derivation};
use proptest::prelude::*;
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use super::*;

const EMAIL: IndexField = IndexField::new("users", "email", 64).normalize(Normalizer::Email);
const LOGIN: IndexField = IndexField::new("users", "email", 256)
    .named("login")
    .normalize(Normalizer::Email)
    .unique();
const CITY: IndexField = IndexField::new("users", "city", 10)
    .normalize(Normalizer::CaseFold)
    .expecting(10_000);
const NUMBER: IndexField = IndexField::new("orders", "number", 128);
const ORDER: IndexField =
    IndexField::new("orders", "number", 48).normalize(Normalizer::custom("order-number", 3, |text| {
        Some(text.replace('-', "").to_uppercase())
    }));
const PATIENT: IndexField = IndexField::compound(
    "patients",
    &[
        IndexPart::new("last_name").normalize(Normalizer::CaseFold),
        IndexPart::new("born"),
    ],
    32,
);

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Computes a term as `Crypto` does, under the key 00 01 .. 1f.
fn term(field: &IndexField, value: impl IndexValue) -> BlindIndex {
    under_a_key(&field.message(&value).unwrap())
}

fn under_a_key(message: &Message) -> BlindIndex {
    let key: Vec<u8> = (0..32).collect();
    let derivation = Derivation::new(&DataKey::copy_from(&key).unwrap());
    let id = "01a2053d-7b01-7cc1-b36a-182ccc288e45".parse().unwrap();
    message.under(id, &derivation.derive(&message.info))
}

/// The info that derives the key of an index, for a value that every normaliser takes.
fn info(field: &IndexField) -> Vec<u8> {
    field.message("a@b").unwrap().info
}

fn refused(field: &IndexField, value: impl IndexValue) -> IndexError {
    field.message(&value).map(|_| ()).unwrap_err()
}

/// Computed by Python's `hmac`, with HKDF written out from RFC 5869.
#[test]
fn terms_are_pinned() {
    let known = [
        (term(&EMAIL, " Ada@Example.ORG"), "cc288e4593ced1fb73888a12"),
        (
            term(&LOGIN, "ada@example.org"),
            "cc288e4524b2db141bc548fb78306c8615d07b9759a79aba7865603d5a4dcc430a12fbc7",
        ),
        (term(&CITY, "Straße 5"), "cc288e45d080"),
        (term(&EMAIL, "ΝΙΚΟΣ@example.gr"), "cc288e45b412f6db80977472"),
        (term(&EMAIL, " "), "cc288e45b830993ded763052"),
        (term(&NUMBER, 42_i64), "cc288e45bc7cf3b92a36fd82f354edd0531f5d8e"),
        (term(&ORDER, "ab-12"), "cc288e45935e1e11cbaa"),
        (term(&PATIENT, ("LOVELACE", 1815_u16)), "cc288e45e96ff193"),
    ];
    for (found, expected) in known {
        assert_eq!(hex(found), expected);
    }
    assert_eq!(
        hex(info(&EMAIL)),
        "656e63782f696e6465782f7631030005010000000575736572730100000005656d61696c01000000000100000005656d61696c\
         0200000010000000000000000000000000000000010040"
    );
}

#[test]
fn every_part_of_an_index_is_in_its_key() {
    let base = IndexField::new("t", "c", 64)
        .named("n")
        .normalize(Normalizer::Trim);
    let custom = |version| Normalizer::custom("trim", version, |text| Some(text.to_owned()));
    let others = [
        IndexField::new("u", "c", 64)
            .named("n")
            .normalize(Normalizer::Trim),
        IndexField::new("t", "d", 64)
            .named("n")
            .normalize(Normalizer::Trim),
        IndexField::new("t", "c", 64).normalize(Normalizer::Trim),
        IndexField::new("t", "c", 64)
            .named("o")
            .normalize(Normalizer::Trim),
        IndexField::new("t", "c", 63)
            .named("n")
            .normalize(Normalizer::Trim),
        base.normalize(Normalizer::Exact),
        // A custom function differs from a built-in normaliser of the same name.
        base.normalize(custom(1)),
        base.normalize(custom(2)),
        // Names that join to the same text are different names.
        IndexField::new("tc", "n", 64).normalize(Normalizer::Trim),
    ];
    let mut infos: Vec<_> = others.iter().chain([&base]).map(info).collect();
    infos.sort();
    infos.dedup();
    assert_eq!(infos.len(), others.len() + 1);
    // Whether an index is unique changes its checks, not its terms.
    assert_eq!(info(&EMAIL), info(&EMAIL.insecure_small_domain()));
}

#[test]
fn only_the_top_bits_are_kept() {
    let whole = hex(term(&IndexField::new("t", "c", 256), "value"));
    assert_eq!(whole.len(), 2 * BlindIndex::MAX_LEN);
    for bits in IndexField::MIN_BITS..=IndexField::MAX_BITS {
        let field = IndexField::new("t", "c", bits);
        let message = field.message("value").unwrap();
        let subkey = Derivation::new(&DataKey::copy_from(&[1; 32]).unwrap()).derive(b"");
        let term = message.under("01a2053d-7b01-7cc1-b36a-182ccc288e45".parse().unwrap(), &subkey);
        let whole = IndexField::new("t", "c", 256).message("value").unwrap();
        let whole = whole.under("01a2053d-7b01-7cc1-b36a-182ccc288e45".parse().unwrap(), &subkey);
        assert_eq!(term.as_bytes().len(), field.stored_len());
        let kept = |at: usize| {
            let bit = |index: &BlindIndex| {
                index.as_bytes().get(4 + at / 8).map_or(0, |byte| *byte) >> (7 - at % 8) & 1
            };
            (bit(&term), bit(&whole))
        };
        for at in 0..usize::from(bits) {
            let (found, expected) = kept(at);
            assert_eq!(found, expected, "{bits} bits, bit {at}");
        }
        for at in usize::from(bits)..256 {
            assert_eq!(kept(at).0, 0, "{bits} bits, bit {at}");
        }
        assert_eq!(BlindIndex::parse(term).unwrap(), term);
    }
}

#[test]
fn normalisers_do_what_they_say() {
    let known: [(Normalizer, &str, &str); 34] = [
        (Normalizer::Exact, " É ", " É "),
        (Normalizer::Trim, "\u{a0}\t É x \n", "É x"),
        (Normalizer::Lowercase, " ÀB Σ ", "àb σ"),
        // Context does not matter, not even that of a final sigma.
        (Normalizer::Lowercase, "ΟΔΟΣ", "οδοσ"),
        (Normalizer::Lowercase, "οδος", "οδοσ"),
        (Normalizer::Lowercase, "ς", "σ"),
        (Normalizer::Lowercase, "İ", "i\u{307}"),
        (Normalizer::CaseFold, "Straße", "strasse"),
        (Normalizer::CaseFold, "STRASSE", "strasse"),
        (Normalizer::CaseFold, "ＳＴＲＡＳＳＥ\u{3000}", "strasse"),
        (Normalizer::CaseFold, "e\u{301}", "é"),
        (Normalizer::CaseFold, "ﬁ", "fi"),
        (Normalizer::CaseFold, "ΟΔΟς", "οδοσ"),
        (Normalizer::CaseFold, "Ａ ", "a"),
        (
            Normalizer::Email,
            " Ada.Lovelace+Tag@Example.ORG\n",
            "ada.lovelace+tag@example.org",
        ),
        (Normalizer::Email, "ada@bücher.example", "ada@bücher.example"),
        (Normalizer::Email, "\"a@b\"@c.d", "\"a@b\"@c.d"),
        (Normalizer::Email, "ａda＠example.org", "ada@example.org"),
        (Normalizer::Email, "ΝΙΚΟΣ@example.gr", "νικοσ@example.gr"),
        (Normalizer::Email, "νικος@example.gr", "νικοσ@example.gr"),
        // The lunate sigma.
        (Normalizer::Email, "νικοϲ@example.gr", "νικοσ@example.gr"),
        (Normalizer::Email, " \t", ""),
        (Normalizer::Exact, "", ""),
        (Normalizer::Trim, "\u{a0}", ""),
        (Normalizer::CaseFold, "\u{3000}", ""),
        (Normalizer::Phone, "+ ()", ""),
        (
            Normalizer::Email,
            "ADA@BU\u{308}CHER.example",
            "ada@bücher.example",
        ),
        (Normalizer::Phone, "+49 (151) 123-45.67", "+491511234567"),
        (Normalizer::Phone, " 0151/1234567 ", "01511234567"),
        (Normalizer::Phone, "(+49)151", "+49151"),
        (Normalizer::Phone, "＋４９ １５１", "+49151"),
        (Normalizer::Phone, "12‑34–56", "123456"),
        (Normalizer::Phone, "0", "0"),
        (ORDER.first_normalizer(), "ab-12", "AB12"),
    ];
    for (normalizer, text, expected) in known {
        let found = normalizer.apply(text).unwrap();
        assert_eq!(*found, expected, "{normalizer:?} of {text:?}");
        // A normalised value stays unchanged.
        assert_eq!(*normalizer.apply(expected).unwrap(), expected, "{normalizer:?}");
    }
}

#[test]
fn normalisers_keep_their_names_and_versions() {
    let known = [
        Normalizer::CaseFold,
        Normalizer::Email,
        Normalizer::Exact,
        Normalizer::Lowercase,
        Normalizer::Phone,
        Normalizer::Trim,
        ORDER.first_normalizer(),
    ]
    .map(|normalizer| (normalizer.id(), normalizer.version()));
    let expected = [
        ("case-fold", 1),
        ("email", 2),
        ("exact", 1),
        ("lowercase", 2),
        ("phone", 1),
        ("trim", 1),
        ("custom/order-number", 3),
    ]
    .map(|(id, version)| (id.to_owned(), version));
    assert_eq!(known, expected);
}

#[test]
fn what_cannot_be_normalised_is_refused() {
    let of = |normalizer| IndexField::new("t", "c", 64).normalize(normalizer);
    for text in [
        "ada",
        "@example.org",
        "ada@",
        "a da@example.org",
        "ada@exam\u{0}ple.org",
    ] {
        let error = refused(&of(Normalizer::Email), text);
        assert!(
            matches!(error, IndexError::NotNormalized { .. }),
            "{text}: {error}"
        );
        assert!(!error.to_string().contains(text));
    }
    for text in ["0800 FLOWERS", "49+151", "++49", "+49#1", "٠١٢"] {
        let error = refused(&of(Normalizer::Phone), text);
        assert!(
            matches!(error, IndexError::NotNormalized { .. }),
            "{text}: {error}"
        );
    }
    let never = Normalizer::custom("never", 1, |_| None);
    assert!(matches!(
        refused(&of(never), "a"),
        IndexError::NotNormalized { .. }
    ));
}

/// The empty value is a value like any other: a record with an empty field can be written, and found.
#[test]
fn the_empty_value_has_a_term() {
    let nothing = Normalizer::custom("nothing", 1, |_| Some(String::new()));
    for normalizer in [
        Normalizer::CaseFold,
        Normalizer::Email,
        Normalizer::Exact,
        Normalizer::Lowercase,
        Normalizer::Phone,
        Normalizer::Trim,
        nothing,
    ] {
        let field = IndexField::new("t", "c", 64).normalize(normalizer);
        let empty = term(&field, "");
        if normalizer != Normalizer::Exact {
            assert_eq!(term(&field, " \u{a0}\t"), empty, "{normalizer:?}");
            assert!(field.is_same(" ", "").unwrap());
        }
        let some = if normalizer == Normalizer::Phone {
            "1"
        } else {
            "a@b"
        };
        assert_eq!(term(&field, some) == empty, normalizer == nothing);
        assert_eq!(field.sought("").unwrap().len(), 1);
    }
    // It also differs from an integer and from bytes, and in each part of several.
    assert_ne!(term(&NUMBER, ""), term(&NUMBER, 0_i64));
    assert_eq!(term(&NUMBER, ""), term(&NUMBER, b""));
    let parts = [("", ""), ("a", ""), ("", "a"), ("", " "), ("a", "a")];
    let mut terms = parts.map(|value| term(&PATIENT, value));
    terms.sort();
    assert!(terms.windows(2).all(|pair| pair[0] != pair[1]));
}

/// Version 2 writes `σ` for `ς`. Values without a sigma have the terms of version 1; the others have new ones, and
/// their terms of version 1 are searched for.
#[test]
fn a_final_sigma_is_a_sigma_and_old_terms_are_still_found() {
    let of = |normalizer| IndexField::new("users", "email", 64).normalize(normalizer);
    let first = |normalizer: Normalizer, text: &str| {
        // As version 1 did: its key, and its form of the text.
        let form = match normalizer {
            Normalizer::Email => text
                .nfkc()
                .collect::<String>()
                .trim()
                .chars()
                .flat_map(char::to_lowercase)
                .nfkc()
                .collect::<String>(),
            _ => text.trim().chars().flat_map(char::to_lowercase).collect(),
        };
        let field = of(normalizer);
        let normalized = value::Normalized {
            versions: vec![1],
            bytes: Zeroizing::new(form.into_bytes()),
        };
        under_a_key(&field.message_of(normalized))
    };
    let sought = |field: &IndexField, text: &str| -> Vec<_> {
        field.sought(text).unwrap().iter().map(under_a_key).collect()
    };
    let spellings = [
        "ΝΙΚΟΣ.ΣΑΣ@example.gr",
        "νικος.σας@example.gr",
        " Νικος.Σας@EXAMPLE.gr",
        "νικοσ.σασ@example.gr",
        "νικος.σασ@example.gr",
    ];
    for normalizer in [Normalizer::Email, Normalizer::Lowercase] {
        let field = of(normalizer);
        for one in spellings {
            for other in spellings {
                assert!(field.is_same(one, other).unwrap(), "{one} {other}");
                assert_eq!(term(&field, one), term(&field, other));
            }
            let terms = sought(&field, one);
            assert_eq!(terms.last(), Some(&term(&field, one)), "that of today, last");
            // Each usual spelling, whichever of them is searched, and the typed one.
            for old in &spellings[..4] {
                assert!(terms.contains(&first(normalizer, old)), "{one} finds {old}");
            }
            assert!(terms.contains(&first(normalizer, one)));
            assert!(terms.len() <= 4, "{}", terms.len());
            assert_ne!(first(normalizer, one), term(&field, one));
        }
        // Nothing changes for the others, and they need no second term.
        for text in ["Ada@Example.org", "νικη@example.gr", ""] {
            assert_eq!(sought(&field, text), [first(normalizer, text)]);
        }
    }
    const TWO: IndexField = IndexField::compound(
        "t",
        &[
            IndexPart::new("a").normalize(Normalizer::Lowercase),
            IndexPart::new("b"),
            IndexPart::new("c").normalize(Normalizer::Email),
        ],
        64,
    );
    let value = |name: &'static str, mail: &'static str| (name, 7, mail);
    assert!(TWO.is_same(value("ΟΔΟΣ", "Σ@a"), value("οδος", "ς@a")).unwrap());
    assert_eq!(TWO.sought(&value("a", "a@a")).unwrap().len(), 1);
    let number = 7_i128.to_be_bytes();
    // The second is found by its own spelling, in which the parts end differently.
    for (old, name, mail) in [
        (["οδος", "a@a"], "ΟΔΟΣ", "A@a"),
        (["νικοσ", "πάτρας@a"], "ΝΙΚΟΣ", "Πάτρας@a"),
    ] {
        let mut framed = Vec::new();
        value::frame(
            4,
            &[(1, old[0].as_bytes()), (2, &number[..]), (1, old[1].as_bytes())],
            &mut framed,
        );
        let old = value::Normalized {
            versions: vec![1, 1, 1],
            bytes: Zeroizing::new(framed),
        };
        let old = under_a_key(&TWO.message_of(old));
        let sought: Vec<_> = TWO
            .sought(&value(name, mail))
            .unwrap()
            .iter()
            .map(under_a_key)
            .collect();
        assert!(
            sought.contains(&old),
            "the term of version 1 is looked for: {name}"
        );
    }
}

/// All letters of Latin, Greek and Cyrillic except these are found in any case. `CaseFold` finds `ß` as `SS`.
#[test]
fn any_case_of_a_letter_is_one() {
    let differs = |c: &char| {
        let (upper, lower) = (format!("a{}a@b", c.to_uppercase()), format!("a{c}a@b"));
        EMAIL.is_same(&upper, &lower).is_ok_and(|same| !same)
    };
    let different: Vec<char> = ('\0'..'\u{530}').filter(differs).collect();
    assert_eq!(different, ['ß', 'ı', '\u{345}']);
}

#[test]
fn values_must_fit_their_index() {
    assert!(matches!(refused(&EMAIL, 7), IndexError::NotText { .. }));
    assert!(matches!(
        refused(&EMAIL, b"ada@example.org"),
        IndexError::NotText { .. }
    ));
    let parts = |expected, found| IndexError::Parts { expected, found };
    assert_eq!(refused(&EMAIL, ("ada@example.org", "b")), parts(1, 2));
    assert_eq!(refused(&PATIENT, "Lovelace"), parts(2, 1));
    assert_eq!(refused(&PATIENT, ("a", 1, 2)), parts(2, 3));
    assert_eq!(
        refused(&NUMBER, vec![0; MAX_INDEXED_LEN + 1]),
        IndexError::TooLong
    );
    NUMBER.message(&vec![0; MAX_INDEXED_LEN]).unwrap();
    // One character of four bytes becomes 18 of three.
    let grows = "\u{fdfa}".repeat(MAX_INDEXED_LEN / 3);
    let folded = IndexField::new("t", "c", 64).normalize(Normalizer::CaseFold);
    assert_eq!(refused(&folded, grows), IndexError::TooLong);
}

#[test]
fn types_of_one_number_are_one_value_and_parts_are_framed() {
    const COMPOUND: IndexField = IndexField::compound("t", &[IndexPart::new("a"), IndexPart::new("b")], 64);
    assert_eq!(term(&NUMBER, 7_i16), term(&NUMBER, 7_u64));
    assert_eq!(term(&NUMBER, -7_i64), term(&NUMBER, -7_i128));
    let values: [&dyn IndexValue; 8] = [
        &("ab", "c"),
        &("a", "bc"),
        &("1", 1),
        &(1, "1"),
        &(1, 1),
        &(b"1", "1"),
        &(Uuid::from_u128(1), 1),
        &(1_u128.to_be_bytes(), 1),
    ];
    let mut terms = values.map(|value| term(&COMPOUND, value));
    terms.sort();
    assert!(terms.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn domains_that_hide_nothing_are_refused() {
    let bits = |distinct| IndexField::bits_for(distinct);
    let known = [
        (512, 8),
        (1023, 8),
        (1024, 9),
        (10_000, 12),
        (1_000_000, 18),
        (u64::MAX, 62),
    ];
    for (distinct, most) in known {
        assert_eq!(bits(distinct), Ok(most));
        let field = |bits| IndexField::new("t", "c", bits);
        field(most).check_domain(distinct).unwrap();
        let error = field(most + 1).check_domain(distinct).unwrap_err();
        assert!(matches!(error, IndexError::TooManyBits { .. }), "{error}");
    }
    let eight = IndexField::new("t", "c", 8);
    for distinct in [0, 1, 2, 7, 256, 511] {
        let error = IndexError::DomainTooSmall { distinct };
        assert_eq!(bits(distinct), Err(error.clone()));
        assert_eq!(eight.check_domain(distinct), Err(error));
        assert_eq!(eight.insecure_small_domain().check_domain(distinct), Ok(()));
    }
    // A unique column's values are meant to be told apart, but few of them are still not hidden.
    LOGIN.check_domain(1_000_000).unwrap();
    LOGIN.check_domain(2).unwrap_err();
}

#[test]
fn careless_definitions_panic() {
    const ONE: &[IndexPart] = &[IndexPart::new("c")];
    let careless: [fn() -> IndexField; 10] = [
        || IndexField::new("", "c", 64),
        || IndexField::new("t", "", 64),
        || IndexField::new("t", "c", 7),
        || IndexField::new("t", "c", 257),
        || IndexField::new("t", "c", 64).named(""),
        || IndexField::new("t", "c", 127).unique(),
        || IndexField::new("t", "c", 64).expecting(2),
        || IndexField::new("t", "c", 64).expecting(1_000_000),
        || IndexField::compound("t", ONE, 64),
        || PATIENT.normalize(Normalizer::Trim),
    ];
    for (number, define) in careless.iter().enumerate() {
        assert!(std::panic::catch_unwind(define).is_err(), "{number}");
    }
}

#[test]
fn what_holds_a_value_has_its_term() {
    let term = |value: &dyn IndexValue| term(&NUMBER, value);
    let text = term(&"1815-12-10");
    assert_eq!(term(&Box::<str>::from("1815-12-10")), text);
    assert_eq!(term(&Arc::<str>::from("1815-12-10")), text);
    assert_eq!(term(&Cow::Borrowed("1815-12-10")), text);
    assert_eq!(term(&Zeroizing::new("1815-12-10".to_owned())), text);
    assert_eq!(term(&Box::new(42_i32)), term(&42_i64));
    #[cfg(feature = "chrono")]
    assert_eq!(
        term(&chrono::NaiveDate::from_ymd_opt(1815, 12, 10).unwrap()),
        text
    );
    #[cfg(feature = "time")]
    assert_eq!(
        term(&time::Date::from_calendar_date(1815, time::Month::December, 10).unwrap()),
        text
    );
}

#[test]
fn debug_and_errors_show_no_value() {
    let index = term(&EMAIL, "ada@example.org");
    assert_eq!(format!("{index:?}"), "BlindIndex([12 bytes])");
    assert_eq!(
        format!("{:?}", IndexTerms::new(vec![index])),
        "IndexTerms([BlindIndex([12 bytes])])"
    );
    let values = "secret".append_to(value::IndexValues::empty());
    assert_eq!(format!("{values:?}"), "IndexValues([1 parts])");
}

#[test]
fn lengths_of_stored_indexes_are_bounded() {
    for len in 0..60 {
        let parsed = BlindIndex::parse(vec![7; len]);
        if (5..=36).contains(&len) {
            assert_eq!(parsed.unwrap().to_vec(), vec![7; len]);
        } else {
            assert_eq!(parsed, Err(IndexError::Length { found: len }));
        }
    }
}

proptest! {
    #[test]
    fn normalisers_never_panic_and_are_stable(text in any::<String>()) {
        for normalizer in [
            Normalizer::CaseFold,
            Normalizer::Email,
            Normalizer::Lowercase,
            Normalizer::Phone,
            Normalizer::Trim,
        ] {
            if let Ok(once) = normalizer.apply(&text) {
                let twice = normalizer.apply(&once);
                prop_assert_eq!(twice.as_deref(), Ok(&*once), "{:?}", normalizer);
            }
        }
    }
}

/// A string that grew leaves pieces of the value behind that are not wiped. One with exact capacity did not grow.
#[test]
fn what_is_normalised_is_written_once() {
    // One character becomes 18 by NFKC, two or three by the mappings of cases.
    let text = "a\u{fdfa}\u{130}\u{149}\u{1e9e}".repeat(50);
    for normalizer in [Normalizer::CaseFold, Normalizer::Lowercase] {
        let normalized = normalizer.apply(&text).unwrap();
        assert_eq!(normalized.capacity(), normalized.len(), "{normalizer:?}");
    }
    // The mapping to 18 characters contains white space.
    let text = text.replace('\u{fdfa}', "\u{fb03}");
    let email = Normalizer::Email.apply(&format!("{text}@b")).unwrap();
    assert_eq!(email.capacity(), email.len());
}
