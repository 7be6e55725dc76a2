//! The connection to AWS KMS: an error names the endpoint and the proxy that were used, and what sets them.

use super::*;
use crate::common::environment::{in_environment, is_child};

const NAME: &str = "way::an_error_names_the_endpoint_and_the_proxy_and_what_sets_them";

#[test]
fn an_error_names_the_endpoint_and_the_proxy_and_what_sets_them() {
    if is_child() {
        return encx_testkit::block_on(async {
            let kms = AwsKms::builder().max_attempts(1).build().await.unwrap();
            let error = unwrap(&kms, ARN).await.unwrap_err();
            for line in all_text(&error).lines() {
                println!("said: {line}");
            }
        });
    }
    let here = "http://127.0.0.1:1";
    for (variables, parts) in [
        (
            vec![("AWS_ENDPOINT_URL_KMS", here)],
            vec!["at http://127.0.0.1:1, which AWS_ENDPOINT_URL_KMS sets"],
        ),
        (
            vec![("AWS_ENDPOINT_URL", here)],
            vec!["at http://127.0.0.1:1, which AWS_ENDPOINT_URL sets"],
        ),
        (
            vec![
                ("AWS_ENDPOINT_URL_KMS", "http://kms.invalid"),
                ("HTTP_PROXY", "http://me:hunter2@127.0.0.1:1"),
            ],
            vec![
                "at http://kms.invalid, which AWS_ENDPOINT_URL_KMS sets",
                "through the proxy http://127.0.0.1:1/, which HTTP_PROXY sets",
            ],
        ),
        (
            vec![("https_proxy", "127.0.0.1:1")],
            vec!["through the proxy http://127.0.0.1:1/, which https_proxy sets"],
        ),
        (
            vec![("ALL_PROXY", "http://127.0.0.1:1")],
            vec!["through the proxy http://127.0.0.1:1/, which ALL_PROXY sets"],
        ),
        (
            vec![
                ("AWS_ENDPOINT_URL_KMS", here),
                ("HTTP_PROXY", "http://127.0.0.1:2"),
                ("NO_PROXY", "127.0.0.1"),
            ],
            vec!["KMS in region `eu-central-1` at http://127.0.0.1:1, which AWS_ENDPOINT_URL_KMS sets:"],
        ),
    ] {
        let mut all = vec![("AWS_REGION", HOME)];
        all.extend(&variables);
        let said = in_environment(NAME, &all).unwrap();
        for part in parts {
            assert!(said.contains(part), "{variables:?}: `{part}` is not in: {said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
    }
}
