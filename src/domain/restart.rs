//! What a phone has to do once a user is on it, and why. Pure.

/// A restart, or a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Whether a restart is not enough.
    pub reset: bool,
    /// Why, for an operator.
    pub reason: String,
}

/// What a login asks of the phone. A restart brings what the user's profile has; another language is loaded by a
/// reset only. A phone whose locale is not told is taken to have the right one.
#[must_use]
pub fn after_login(is_local: bool, phone: Option<&str>, profile: Option<&str>) -> Restart {
    match (phone, profile) {
        (Some(phone), Some(profile)) if !phone.eq_ignore_ascii_case(profile) => Restart {
            reset: true,
            reason: format!("the locale of the phone is {phone}, that of the profile {profile}"),
        },
        _ => Restart {
            reset: false,
            reason: if is_local {
                "the phone takes over the device profile"
            } else {
                "the phone registers with its user's home cluster"
            }
            .to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_locale_asks_for_a_reset_and_it_is_named() {
        for (phone, profile, reset) in [
            (None, None, false),
            (Some("en_US"), None, false),
            (None, Some("de_DE"), false),
            (Some("en_US"), Some("EN_us"), false),
            (Some("en_US"), Some("de_DE"), true),
        ] {
            for is_local in [true, false] {
                let restart = after_login(is_local, phone, profile);
                assert_eq!(restart.reset, reset, "{phone:?} {profile:?}");
                let names = restart.reason.contains("en_US") && restart.reason.contains("de_DE");
                assert_eq!(names, reset, "{}", restart.reason);
            }
        }
        assert_ne!(
            after_login(true, None, None),
            after_login(false, None, None)
        );
    }
}
