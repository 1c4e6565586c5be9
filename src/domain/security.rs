//! Which phones may be carried between which clusters, by their security modes. Pure.
//!
//! A phone whose signalling is not secure may go everywhere. A secure one needs a secure cluster on both sides, and
//! both sides able to make configuration for it.

use std::fmt;

use crate::domain::{em_code::EmCode, login::SecurityMode};

/// One of the two clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Its mode.
    pub mode: SecurityMode,
    /// Whether it has the capability [`SECURE_CONFIG`](crate::domain::capability::SECURE_CONFIG).
    pub secure_config: bool,
}

/// Why a phone may not be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The phone is secure in a cluster that isn't.
    Device,
    /// One of the clusters can't serve secure phones at all.
    Version,
    /// Home is not secure.
    Home,
}

impl Mismatch {
    /// Its code.
    #[must_use]
    pub const fn em_code(self) -> EmCode {
        match self {
            Self::Device => EmCode::DeviceSecurityModeError,
            Self::Version => EmCode::RemoteVersionNotSupported,
            Self::Home => EmCode::RemoteSecurityModeNotSupported,
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "the phone is secure, but its cluster is not in mixed mode",
            Self::Version => {
                "the phone is secure, and one of the two clusters lacks the capability secure-config"
            }
            Self::Home => "the phone is secure, but the home cluster is not in mixed mode",
        })
    }
}

/// How the phone's signalling will be, or why it may not be carried.
///
/// # Errors
/// [`Mismatch`], in the order 43, 45, 46.
pub fn judge(home: Side, visiting: Side, phone: SecurityMode) -> Result<SecurityMode, Mismatch> {
    if phone == SecurityMode::NonSecure {
        return Ok(SecurityMode::NonSecure);
    }
    if visiting.mode == SecurityMode::NonSecure {
        return Err(Mismatch::Device);
    }
    if !home.secure_config || !visiting.secure_config {
        return Err(Mismatch::Version);
    }
    match home.mode {
        SecurityMode::NonSecure => Err(Mismatch::Home),
        SecurityMode::Secure => Ok(SecurityMode::Secure),
    }
}

#[cfg(test)]
pub(crate) mod table {
    //! The incumbent's table, for the tests here and for those of the two roles.

    use super::SecurityMode::{self, NonSecure as N, Secure as S};

    /// A cluster that is able to make configuration for secure phones, and one that is not: the incumbent's 8.x.
    const OURS: bool = true;
    const OLD: bool = false;

    /// One row.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Row {
        /// Mode, and whether it is able.
        pub(crate) home: (SecurityMode, bool),
        /// The same.
        pub(crate) visiting: (SecurityMode, bool),
        pub(crate) phone: SecurityMode,
        /// How its signalling will be, or the code.
        pub(crate) expected: Result<SecurityMode, u16>,
        /// What the incumbent has where it differs.
        pub(crate) note: &'static str,
    }

    const fn row(
        home: (SecurityMode, bool),
        visiting: (SecurityMode, bool),
        phone: SecurityMode,
        expected: Result<SecurityMode, u16>,
        note: &'static str,
    ) -> Row {
        Row {
            home,
            visiting,
            phone,
            expected,
            note,
        }
    }

    pub(crate) const ROWS: [Row; 15] = [
        row((S, OURS), (S, OURS), S, Ok(S), ""),
        row((S, OURS), (S, OURS), N, Ok(N), ""),
        row((S, OURS), (N, OURS), N, Ok(N), ""),
        row((N, OURS), (S, OURS), S, Err(46), ""),
        row((N, OURS), (N, OURS), N, Ok(N), ""),
        row((S, OURS), (S, OLD), S, Err(45), "not supported, no code"),
        row((S, OURS), (S, OLD), N, Ok(N), ""),
        row((S, OURS), (N, OLD), N, Ok(N), ""),
        row((N, OURS), (S, OLD), S, Err(45), "not supported, no code"),
        row((N, OURS), (N, OLD), N, Ok(N), ""),
        row((S, OLD), (S, OURS), S, Err(45), ""),
        row((S, OLD), (S, OURS), N, Ok(N), ""),
        row((S, OLD), (N, OURS), N, Ok(N), ""),
        row((N, OLD), (S, OURS), S, Err(45), "fails, no code"),
        row((N, OLD), (N, OURS), N, Ok(N), "prints `secure`"),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_incumbents_table_row_by_row() {
        for (number, row) in table::ROWS.into_iter().enumerate() {
            let side = |(mode, secure_config)| Side {
                mode,
                secure_config,
            };
            let judged = judge(side(row.home), side(row.visiting), row.phone);
            let judged = judged.map_err(|mismatch| mismatch.em_code().number());
            assert_eq!(judged, row.expected, "row {} ({})", number + 1, row.note);
        }
    }

    #[test]
    fn a_secure_phone_of_a_cluster_that_is_not_is_43_whatever_home_is() {
        for mode in [SecurityMode::NonSecure, SecurityMode::Secure] {
            for secure_config in [true, false] {
                let home = Side {
                    mode,
                    secure_config,
                };
                let visiting = Side {
                    mode: SecurityMode::NonSecure,
                    secure_config,
                };
                let judged = judge(home, visiting, SecurityMode::Secure);
                assert_eq!(judged, Err(Mismatch::Device), "{home:?}");
                assert_eq!(
                    judge(home, visiting, SecurityMode::NonSecure),
                    Ok(SecurityMode::NonSecure)
                );
            }
        }
    }
}
