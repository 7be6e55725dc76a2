use super::*;

#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "literals read better")]
fn pinned<T: FieldCodec + PartialEq + fmt::Debug>(value: T, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    assert_eq!(value.encode().unwrap().as_bytes(), bytes);
    assert_eq!(T::decode(bytes).unwrap(), value);
}

#[test]
fn bytes_are_pinned() {
    pinned("é".to_owned(), b"\xc3\xa9");
    pinned::<Box<str>>("a".into(), b"a");
    pinned::<Arc<str>>("a".into(), b"a");
    pinned(Cow::Borrowed("a"), b"a");
    pinned(vec![0_u8, 255], [0, 255]);
    pinned([1_u8, 2], [1, 2]);
    pinned::<Box<[u8]>>(Box::new([1, 2]), [1, 2]);
    pinned(Cow::Borrowed(&[1_u8, 2][..]), [1, 2]);
    pinned(Zeroizing::new("a".to_owned()), b"a");
    pinned(Box::new(true), [1]);
    pinned(true, [1]);
    pinned(false, [0]);
    pinned(1.5_f64, [0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
    pinned(1.5_f32, [0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
    pinned(f64::NEG_INFINITY, [0xff, 0xf0, 0, 0, 0, 0, 0, 0]);
    pinned(f32::NEG_INFINITY, [0xff, 0xf0, 0, 0, 0, 0, 0, 0]);
    pinned(Uuid::from_bytes([9; 16]), [9; 16]);
    let minus_two = [[0xff; 15].as_slice(), &[0xfe]].concat();
    pinned(-2_i8, &minus_two);
    pinned(-2_i64, &minus_two);
    pinned(-2_i128, &minus_two);
    let large = u64::MAX.to_be_bytes();
    pinned(u64::MAX, [[0; 8], large].concat());
    pinned(u128::from(u64::MAX), [[0; 8], large].concat());
}

#[test]
fn what_does_not_fit_is_refused() {
    fn refused<T: FieldCodec>(bytes: &[u8]) -> CodecError {
        T::decode(bytes).map(|_| ()).unwrap_err()
    }
    let of = |value: i128| value.to_be_bytes();
    assert!(matches!(refused::<i8>(&of(128)), CodecError::OutOfRange { .. }));
    assert!(matches!(refused::<u64>(&of(-1)), CodecError::OutOfRange { .. }));
    assert!(matches!(u128::MAX.encode(), Err(CodecError::OutOfRange { .. })));
    assert!(matches!(
        refused::<i64>(&[0; 8]),
        CodecError::Length {
            found: 8,
            expected: 16,
            ..
        }
    ));
    assert!(matches!(refused::<[u8; 4]>(&[0; 5]), CodecError::Length { .. }));
    assert!(matches!(refused::<bool>(&[2]), CodecError::Malformed { .. }));
    assert!(matches!(refused::<bool>(&[]), CodecError::Length { .. }));
    assert!(matches!(refused::<String>(&[0xff]), CodecError::Malformed { .. }));
    assert!(matches!(refused::<Uuid>(&[0; 15]), CodecError::Length { .. }));
    for wide in [0.1, f64::MAX, f64::MIN_POSITIVE] {
        let refused = refused::<f32>(&wide.to_be_bytes());
        assert!(matches!(refused, CodecError::OutOfRange { .. }), "{wide}");
    }
    assert!(f32::decode(&f64::NAN.to_be_bytes()).unwrap().is_nan());
}

#[test]
fn debug_shows_no_content() {
    assert_eq!(
        format!("{:?}", "ada".to_owned().encode()),
        "Ok(Encoded([REDACTED]))"
    );
}

#[cfg(feature = "json")]
#[test]
fn json_errors_quote_nothing() {
    assert_eq!(
        json::encode(&vec![Some("a".to_owned()), None])
            .unwrap()
            .as_bytes(),
        br#"["a",null]"#
    );
    let long = vec!["x".repeat(1000); 3];
    let written = json::encode(&long).unwrap();
    assert_eq!(json::decode::<Vec<String>>(written.as_bytes()).unwrap(), long);
    let error = json::decode::<Vec<u8>>(br#""hunter2""#).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    assert!(matches!(error, CodecError::Json { line: 1, .. }));
    assert!(json::decode::<u8>(b"1 2").is_err());
}

#[cfg(feature = "chrono")]
#[test]
fn dates_of_chrono_are_pinned() {
    use ::chrono::{DateTime, NaiveDate, NaiveTime, Utc};

    let date = NaiveDate::from_ymd_opt(2026, 1, 31).unwrap();
    let time = NaiveTime::from_hms_nano_opt(23, 59, 1, 42).unwrap();
    pinned(date, "2026-01-31");
    pinned(time, "23:59:01.000000042");
    pinned(date.and_time(time), "2026-01-31T23:59:01.000000042");
    pinned(date.and_time(time).and_utc(), "2026-01-31T23:59:01.000000042Z");
    for year in [-1, 10_000] {
        let date = NaiveDate::from_ymd_opt(year, 1, 1).unwrap();
        assert!(matches!(date.encode(), Err(CodecError::OutOfRange { .. })));
    }
    let leap = NaiveTime::from_hms_nano_opt(23, 59, 59, 1_500_000_000).unwrap();
    assert!(matches!(leap.encode(), Err(CodecError::OutOfRange { .. })));
    for wrong in [
        "2026-01-31T23:59:01.000000042",
        "2026-01-31T23:59:01.00000004Z",
        "2026-01-31T23:59:01.000000042z",
        "2026-02-30T23:59:01.000000042Z",
        "2026-01-31T24:59:01.000000042Z",
        "+026-01-31T23:59:01.000000042Z",
        "2026-01-31T23:59:60.000000042Z",
    ] {
        assert!(DateTime::<Utc>::decode(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[cfg(feature = "time")]
#[test]
fn dates_of_time_are_pinned() {
    use ::time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

    let date = Date::from_calendar_date(2026, Month::January, 31).unwrap();
    let time = Time::from_hms_nano(23, 59, 1, 42).unwrap();
    let local = PrimitiveDateTime::new(date, time);
    pinned(date, "2026-01-31");
    pinned(time, "23:59:01.000000042");
    pinned(local, "2026-01-31T23:59:01.000000042");
    pinned(local.assume_utc(), "2026-01-31T23:59:01.000000042Z");
    let elsewhere = local.assume_offset(UtcOffset::from_hms(2, 0, 0).unwrap());
    pinned(elsewhere, "2026-01-31T21:59:01.000000042Z");
    assert!(OffsetDateTime::decode(b"2026-13-31T23:59:01.000000042Z").is_err());
    assert!(
        Date::from_calendar_date(-1, Month::May, 1)
            .unwrap()
            .encode()
            .is_err()
    );
    let edge = PrimitiveDateTime::MIN.assume_offset(UtcOffset::from_hms(2, 0, 0).unwrap());
    assert!(edge.encode().is_err());
}

/// Every value that is written reads back equal; a value that could not be read is not written.
mod round_trips {
    use proptest::prelude::*;

    use super::*;

    fn comes_back<T: FieldCodec + PartialEq + fmt::Debug>(value: &T) -> Result<(), TestCaseError> {
        if let Ok(written) = value.encode() {
            prop_assert_eq!(&T::decode(written.as_bytes()).unwrap(), value);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn integers(wide in any::<(i128, u128)>(), small in any::<(i64, u64, i32, u32, i16, u16, i8, u8)>()) {
            comes_back(&wide.0)?;
            comes_back(&wide.1)?;
            comes_back(&small.0)?;
            comes_back(&small.1)?;
            comes_back(&small.2)?;
            comes_back(&small.3)?;
            comes_back(&small.4)?;
            comes_back(&small.5)?;
            comes_back(&small.6)?;
            comes_back(&small.7)?;
            comes_back(&isize::from(small.4))?;
            comes_back(&usize::from(small.5))?;
        }

        #[test]
        fn floats_bit_by_bit(double in any::<u64>(), single in any::<u32>()) {
            let double = f64::from_bits(double);
            let read = f64::decode(double.encode().unwrap().as_bytes()).unwrap();
            prop_assert_eq!(read.to_bits(), double.to_bits());
            let single = f32::from_bits(single);
            let read = f32::decode(single.encode().unwrap().as_bytes()).unwrap();
            // A NaN stays a NaN, but the processor may change its payload.
            prop_assert!(read.to_bits() == single.to_bits() || read.is_nan() && single.is_nan());
        }

        #[test]
        fn texts_and_bytes(text in any::<String>(), bytes in any::<Vec<u8>>(), eight in any::<[u8; 8]>(), flag: bool) {
            comes_back(&text)?;
            comes_back(&Box::<str>::from(text.clone()))?;
            comes_back(&Arc::<str>::from(text.clone()))?;
            comes_back(&Cow::<str>::Owned(text.clone()))?;
            comes_back(&Zeroizing::new(text))?;
            comes_back(&bytes)?;
            comes_back(&bytes.clone().into_boxed_slice())?;
            comes_back(&Cow::<[u8]>::Owned(bytes))?;
            comes_back(&eight)?;
            comes_back(&Box::new(flag))?;
            comes_back(&Uuid::from_u64_pair(u64::from_be_bytes(eight), 0))?;
        }
    }

    #[cfg(feature = "chrono")]
    proptest! {
        #[test]
        fn moments_of_chrono(second: i64, short in -400_000_000_000_i64..400_000_000_000, nanos in 0_u32..2_000_000_000) {
            use ::chrono::DateTime;

            for second in [second, short] {
                // Nanoseconds from a billion on denote a leap second, which only the last second of a minute may have.
                if let Some(moment) = DateTime::from_timestamp(second, nanos) {
                    comes_back(&moment)?;
                    comes_back(&moment.naive_utc())?;
                    comes_back(&moment.date_naive())?;
                    comes_back(&moment.time())?;
                }
            }
            for edge in [DateTime::<::chrono::Utc>::MIN_UTC, DateTime::<::chrono::Utc>::MAX_UTC] {
                comes_back(&edge)?;
            }
        }
    }

    #[cfg(feature = "time")]
    proptest! {
        #[test]
        fn moments_of_time(second: i64, short in -400_000_000_000_i64..400_000_000_000, nanos in 0_i64..1_000_000_000, hours in -25_i8..=25) {
            use ::time::{Duration, OffsetDateTime, UtcOffset};

            for second in [second, short] {
                let Ok(moment) = OffsetDateTime::from_unix_timestamp(second) else {
                    continue;
                };
                let Some(moment) = moment.checked_add(Duration::nanoseconds(nanos)) else {
                    continue;
                };
                let offset = UtcOffset::from_hms(hours, 0, 0).unwrap();
                if let Some(moment) = moment.checked_to_offset(offset) {
                    comes_back(&moment)?;
                    comes_back(&moment.date())?;
                    comes_back(&moment.time())?;
                    comes_back(&::time::PrimitiveDateTime::new(moment.date(), moment.time()))?;
                }
            }
        }
    }
}
