//! Several regions: which is called, in which order, and which answers are final.

use super::*;

/// Two regions, the first of which gives this answer.
async fn two(first: Vec<ResponseTemplate>, second: Vec<ResponseTemplate>) -> (Scripted, Scripted, AwsKms) {
    let (near, far) = (Scripted::start().await, Scripted::start().await);
    for (scripted, answers) in [(&near, first), (&far, second)] {
        if !answers.is_empty() {
            scripted.answer("Decrypt", answers.clone()).await;
            scripted.answer("GenerateDataKey", answers).await;
        }
    }
    let kms = AwsKms::builder()
        .sdk_config(&common::config())
        .regions([AWAY, HOME])
        .endpoint_url_for(AWAY, near.server.uri())
        .endpoint_url_for(HOME, far.server.uri())
        .attempt_timeout(Duration::from_millis(300))
        .max_attempts(1);
    let kms = kms.build().await.unwrap();
    (near, far, kms)
}

fn in_region(region: &str) -> String {
    MRK.replace(HOME, region)
}

#[tokio::test]
async fn the_nearest_replica_serves_whatever_region_the_arn_names() {
    let (near, far, kms) = two(vec![answer_with(&KEY, &in_region(AWAY))], vec![]).await;
    let made = kms.generate_data_key(&arn(MRK), &pairs()).await.unwrap();
    assert_eq!(made.wrapped.kek.as_str(), MRK, "the name of the KEK rule stays");
    unwrap(&kms, MRK).await.unwrap();
    for (_, asked) in near.asked().await {
        assert_eq!(asked["KeyId"], in_region(AWAY));
    }
    assert!(far.asked().await.is_empty());
}

#[tokio::test]
async fn the_next_region_serves_if_one_is_unavailable_or_silent() {
    let late = answer_with(&KEY, &in_region(AWAY)).set_delay(Duration::from_secs(60));
    for first in [
        refusal(500, "KMSInternalException"),
        refusal(503, "X"),
        late,
        json("{"),
        json("{}"),
        pages::page(403),
    ] {
        let (near, far, kms) = two(vec![first], vec![answer_with(&KEY, MRK)]).await;
        assert_eq!(unwrap(&kms, MRK).await.unwrap().expose(), &KEY);
        let made = kms.generate_data_key(&arn(MRK), &pairs()).await.unwrap();
        assert_eq!(made.wrapped.kek.as_str(), MRK);
        // The second call starts with the region that answered the first.
        assert_eq!((near.asked().await.len(), far.asked().await.len()), (1, 2));
    }
}

/// The nearest region hangs: until it answers again, it delays one call by its timeout, and no other call.
#[tokio::test]
async fn a_region_that_hangs_is_waited_for_once_and_is_first_again_when_it_answers() {
    let late = json("{}").set_delay(Duration::from_secs(60));
    let (near, far) = (Scripted::start().await, Scripted::start().await);
    near.answer("Decrypt", [late.clone(), answer_with(&KEY, &in_region(AWAY))])
        .await;
    let described = json(&format!(
        r#"{{"KeyMetadata":{{"KeyId":"1","Arn":"{}","KeyState":"Enabled"}}}}"#,
        in_region(AWAY)
    ));
    // At the first trial it is still silent.
    near.answer("DescribeKey", [late, described]).await;
    far.answer("Decrypt", [answer_with(&KEY, MRK)]).await;
    let operation = Duration::from_millis(900);
    let kms = AwsKms::builder()
        .sdk_config(&common::config())
        .regions([AWAY, HOME])
        .endpoint_url_for(AWAY, near.server.uri())
        .endpoint_url_for(HOME, far.server.uri())
        .attempt_timeout(Duration::from_millis(300))
        .operation_timeout(operation);
    let kms = kms.build().await.unwrap();
    let began = tokio::time::Instant::now();
    for _ in 0..20 {
        unwrap(&kms, MRK).await.unwrap();
    }
    let took = began.elapsed();
    assert!(
        took < operation,
        "it took {took:?}, so the silent region held up more than one call"
    );
    assert_eq!(count(&near, "Decrypt").await, 1);

    let deadline = began + Duration::from_secs(30);
    while count(&near, "Decrypt").await == 1 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the nearest region is never first again"
        );
        unwrap(&kms, MRK).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        count(&near, "DescribeKey").await >= 2,
        "it was tried until it answered"
    );
    let before = count(&far, "Decrypt").await;
    unwrap(&kms, MRK).await.unwrap();
    assert_eq!(count(&far, "Decrypt").await, before);
}

#[tokio::test]
async fn a_refusal_is_final() {
    for (status, code, kind) in REFUSALS {
        if *kind == KmsErrorKind::Unavailable {
            continue;
        }
        let (_near, far, kms) = two(vec![refusal(*status, code)], vec![answer_with(&KEY, MRK)]).await;
        assert_eq!(unwrap(&kms, MRK).await.unwrap_err().kind(), *kind, "{code}");
        assert!(far.asked().await.is_empty(), "{code} went on to the next region");
    }
    // Nor does an untrusted answer.
    let other = in_region(AWAY).replace("mrk-1", "mrk-2");
    let (_near, far, kms) = two(vec![answer_with(&KEY, &other)], vec![answer_with(&KEY, MRK)]).await;
    assert_eq!(
        unwrap(&kms, MRK).await.unwrap_err().kind(),
        KmsErrorKind::Integrity
    );
    assert!(far.asked().await.is_empty());
}

#[tokio::test]
async fn a_replica_of_no_configured_region_is_not_believed() {
    let (_near, _far, kms) = two(vec![answer_with(&KEY, &in_region("us-east-1"))], vec![]).await;
    assert_eq!(
        unwrap(&kms, MRK).await.unwrap_err().kind(),
        KmsErrorKind::Integrity
    );
}

#[tokio::test]
async fn other_keys_and_aliases_stay_in_their_region() {
    let (near, far, kms) = two(vec![refusal(500, "X")], vec![answer_with(&KEY, ARN)]).await;
    assert_eq!(unwrap(&kms, ARN).await.unwrap().expose(), &KEY, "an ARN decides");
    assert_eq!((near.asked().await.len(), far.asked().await.len()), (0, 1));
    let error = kms
        .generate_data_key(&KekId::new("alias/app").unwrap(), &pairs())
        .await;
    assert_eq!(error.unwrap_err().kind(), KmsErrorKind::Unavailable);
    assert_eq!((near.asked().await.len(), far.asked().await.len()), (1, 1));
}

/// `ReEncrypt` tries one region after another like every other call.
#[tokio::test]
async fn a_rewrap_goes_on_to_the_next_region_and_a_refusal_of_it_is_final() {
    let other = MRK.replace("mrk-1", "mrk-2");
    assert_ne!(other, MRK);
    let moved = answer_re_encrypt(MRK, &other);
    let rewrap = async |first: ResponseTemplate| {
        let (near, far, kms) = two(vec![], vec![]).await;
        near.answer("ReEncrypt", [first]).await;
        far.answer("ReEncrypt", [moved.clone()]).await;
        let moved = kms.rewrap_key(&wrap_by(MRK), &pairs(), &arn(&other)).await;
        (moved, near.asked().await, far.asked().await)
    };
    for first in [
        refusal(500, "KMSInternalException"),
        refusal(503, "X"),
        json("{"),
        json("{}"),
        pages::page(404),
    ] {
        let (moved, near, far) = rewrap(first).await;
        assert_eq!(moved.unwrap().kek.as_str(), other);
        let ([(_, near)], [(_, far)]) = (&near[..], &far[..]) else {
            panic!("not one call to each");
        };
        assert_eq!(near["SourceKeyId"], in_region(AWAY));
        assert_eq!(near["DestinationKeyId"], other.replace(HOME, AWAY));
        assert_eq!(
            (&far["SourceKeyId"], &far["DestinationKeyId"]),
            (&MRK.into(), &other.as_str().into())
        );
    }
    for (status, code, kind) in REFUSALS {
        if *kind == KmsErrorKind::Unavailable {
            continue;
        }
        let (moved, _, far) = rewrap(refusal(*status, code)).await;
        assert_eq!(moved.unwrap_err().kind(), *kind, "{code}");
        assert!(far.is_empty(), "{code} went on to the next region");
    }
}
