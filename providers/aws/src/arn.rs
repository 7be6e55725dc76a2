//! How AWS KMS names keys: ARNs, ids and aliases.

use std::fmt;

/// The name of a KEK, with its location if the name has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyName<'a> {
    /// The ARN of a key, the only name that a wrap carries.
    Arn(KeyArn<'a>),
    /// The ARN of an alias, in this region.
    AliasArn { region: &'a str },
    /// An alias in the caller's own account, in any region.
    Alias,
    /// The id of a key in the caller's own account.
    Id { multi_region: bool },
}

/// The ARN of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyArn<'a> {
    partition: &'a str,
    pub(crate) region: &'a str,
    account: &'a str,
    id: &'a str,
}

impl<'a> KeyName<'a> {
    /// Parses a name. `None` if it begins like an ARN but is not one of KMS.
    pub(crate) fn parse(name: &'a str) -> Option<Self> {
        let Some(rest) = name.strip_prefix("arn:") else {
            return Some(if name.starts_with("alias/") {
                Self::Alias
            } else {
                Self::Id {
                    multi_region: name.starts_with("mrk-"),
                }
            });
        };
        let mut parts = rest.splitn(5, ':');
        let partition = parts.next().filter(|part| is_label(part))?;
        parts.next().filter(|service| *service == "kms")?;
        let region = parts.next().filter(|part| is_region(part))?;
        let account = parts.next().filter(|part| is_label(part))?;
        let resource = parts.next()?;
        if resource
            .strip_prefix("alias/")
            .is_some_and(|name| !name.is_empty())
        {
            return Some(Self::AliasArn { region });
        }
        let id = resource.strip_prefix("key/").filter(|id| is_label(id))?;
        Some(Self::Arn(KeyArn {
            partition,
            region,
            account,
            id,
        }))
    }
}

impl<'a> KeyArn<'a> {
    /// Parses the ARN of a key only.
    pub(crate) fn parse(name: &'a str) -> Option<Self> {
        match KeyName::parse(name)? {
            KeyName::Arn(arn) => Some(arn),
            KeyName::AliasArn { .. } | KeyName::Alias | KeyName::Id { .. } => None,
        }
    }

    /// Tells whether the key may have replicas, which share its material, in other regions.
    pub(crate) fn is_multi_region(self) -> bool {
        self.id.starts_with("mrk-")
    }

    /// Returns the ARN of the key's replica in a region.
    pub(crate) fn in_region<'b>(self, region: &'b str) -> KeyArn<'b>
    where
        'a: 'b,
    {
        KeyArn { region, ..self }
    }

    /// Tells whether both name the same material: one key, or replicas of one multi-region key.
    pub(crate) fn shares_material_with(self, other: KeyArn<'_>) -> bool {
        self.partition == other.partition
            && self.account == other.account
            && self.id == other.id
            && (self.region == other.region || self.is_multi_region())
    }

    /// Returns the key's id.
    pub(crate) fn id(self) -> &'a str {
        self.id
    }
}

impl fmt::Display for KeyArn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            partition,
            region,
            account,
            id,
        } = self;
        write!(f, "arn:{partition}:kms:{region}:{account}:key/{id}")
    }
}

/// Tells whether a text has the form of a region code, such as `eu-central-1` or `us-gov-west-1`.
///
/// It becomes part of a host name. Other texts, such as a city or an availability zone, would name a host that does not
/// exist, which looks like an outage.
pub(crate) fn is_region(text: &str) -> bool {
    let mut labels = text.split('-');
    let number = labels.next_back().unwrap_or_default();
    let is_number = (1..=2).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    let is_word = |word: &str| word.len() >= 2 && word.bytes().all(|byte| byte.is_ascii_lowercase());
    text.len() <= 63 && is_number && text.matches('-').count() >= 2 && labels.all(is_word)
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Returns the region that the host name of an AWS KMS endpoint names, if it is one.
pub(crate) fn region_of_endpoint(url: &str) -> Option<&str> {
    let host = url.split_once("://")?.1.split(['/', ':', '?']).next()?;
    if ![".amazonaws.com", ".amazonaws.com.cn", ".api.aws"]
        .iter()
        .any(|suffix| host.ends_with(suffix))
    {
        return None;
    }
    let mut labels = host.split('.');
    labels.find(|label| matches!(*label, "kms" | "kms-fips"))?;
    labels.next().filter(|label| is_region(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const MRK: &str = "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";

    #[test]
    fn names_are_told_apart() {
        assert!(matches!(KeyName::parse(ARN), Some(KeyName::Arn(_))));
        let alias = KeyName::parse("arn:aws-cn:kms:cn-north-1:111122223333:alias/app/pii");
        assert_eq!(alias, Some(KeyName::AliasArn { region: "cn-north-1" }));
        assert_eq!(KeyName::parse("alias/app"), Some(KeyName::Alias));
        let id = |multi_region| Some(KeyName::Id { multi_region });
        assert_eq!(KeyName::parse("1234abcd-12ab-34cd-56ef-1234567890ab"), id(false));
        assert_eq!(KeyName::parse("mrk-1234abcd12ab34cd56ef1234567890ab"), id(true));
    }

    #[test]
    fn what_is_no_arn_of_kms_is_refused() {
        for name in [
            "arn:",
            "arn:aws:s3:eu-central-1:111122223333:key/1234",
            "arn:aws:kms::111122223333:key/1234",
            "arn:aws:kms:eu-central-1::key/1234",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms:eu-central-1:111122223333:key/12/34",
            "arn:aws:kms:eu-central-1:111122223333:alias/",
            "arn:aws:kms:eu-central-1:111122223333:grant/1234",
            "arn:aws:kms:evil.example/:111122223333:key/1234",
            "arn:aws:kms:evil.example:111122223333:key/1234",
        ] {
            assert_eq!(KeyName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn only_replicas_share_material() {
        fn arn(text: &str) -> KeyArn<'_> {
            KeyArn::parse(text).unwrap()
        }
        assert_eq!(arn(MRK).to_string(), MRK);
        assert!(arn(ARN).shares_material_with(arn(ARN)));
        assert!(!arn(ARN).shares_material_with(arn(&ARN.replace("central", "west"))));
        assert!(arn(MRK).shares_material_with(arn(MRK).in_region("us-east-1")));
        for (part, other) in [(":aws:", ":aws-cn:"), ("1111", "9999"), ("mrk-1", "mrk-2")] {
            assert!(
                !arn(MRK).shares_material_with(arn(&MRK.replace(part, other))),
                "{other}"
            );
        }
    }

    #[test]
    fn a_region_is_named_by_its_code() {
        for region in [
            "eu-central-1",
            "us-gov-west-1",
            "cn-northwest-1",
            "eusc-de-east-1",
            "us-isob-east-1",
        ] {
            assert!(is_region(region), "{region}");
        }
        for text in [
            "",
            "-",
            "frankfurt",
            "eu-central",
            "eu-central-1a",
            "eu-central-",
            "-central-1",
            "EU-CENTRAL-1",
            "eu_central_1",
            "eu-central-1 ",
            "\"eu-central-1\"",
            "eu--1",
            "central-1",
            "eu-central-100",
            "evil.example/",
            "a.b-c-1",
        ] {
            assert!(!is_region(text), "{text}");
        }
    }

    #[test]
    fn the_host_of_an_endpoint_names_its_region() {
        for host in [
            "kms.eu-west-1.amazonaws.com",
            "kms-fips.eu-west-1.amazonaws.com/",
            "kms.eu-west-1.amazonaws.com.cn:443",
            "kms.eu-west-1.api.aws",
            "vpce-0123-abcd.kms.eu-west-1.vpce.amazonaws.com",
        ] {
            assert_eq!(
                region_of_endpoint(&format!("https://{host}")),
                Some("eu-west-1"),
                "{host}"
            );
        }
        for url in [
            "http://127.0.0.1:5000",
            "https://kms.eu-west-1.example.com",
            "kms",
        ] {
            assert_eq!(region_of_endpoint(url), None, "{url}");
        }
    }
}
