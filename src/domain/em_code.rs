//! EM codes: the numbers that a phone shows. Pure.

/// Every EM code: those of the EM service (0 to 47) and of the EM application (201 to 216).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
#[allow(missing_docs, reason = "the table below describes each")]
pub enum EmCode {
    UnknownError = 0,
    ErrorOnParsing = 1,
    EmccAuthenticationError = 2,
    InvalidAppUser = 3,
    PolicyValidationError = 4,
    DeviceLogonDisabledAtService = 5,
    DatabaseError = 6,
    LogoutRequestError = 7,
    QueryTypeUndetermined = 8,
    DirectoryUserInfoError = 9,
    NoProxyRights = 10,
    DeviceDoesNotExist = 11,
    DeviceProfileNotFound = 12,
    AnotherUserLoggedIn = 18,
    NoUserLoggedIn = 19,
    HotelingFlagError = 20,
    HotelingStatusError = 21,
    DeviceLogonDisabled = 22,
    UserDoesNotExist = 23,
    UserLoggedInElsewhere = 25,
    Busy = 26,
    ChangePassword = 27,
    UntrustedIp = 28,
    RisDown = 29,
    ProxyNotAllowed = 30,
    EmccNotActivatedForUser = 31,
    DeviceDoesNotSupportEmccAtService = 32,
    NoFreeBaseDevice = 33,
    VisitingClusterUnknown = 35,
    NoRemoteCluster = 36,
    DuplicateDeviceName = 37,
    EmccNotAllowed = 38,
    TftpNotConfigured = 39,
    NoResponseFromRemoteHost = 40,
    PinChangeRequired = 41,
    InvalidClusterId = 42,
    DeviceSecurityModeError = 43,
    ClusterIdNotConfigured = 44,
    RemoteVersionNotSupported = 45,
    RemoteSecurityModeNotSupported = 46,
    DnHasMultipleUsersRemote = 47,
    AuthenticationError = 201,
    BlankUserIdOrPin = 202,
    DirectoryServerError = 204,
    UserProfileAbsent = 205,
    DeviceNameEmpty = 207,
    ServiceConnectionError = 208,
    ChangePin = 209,
    InitFailed = 210,
    EmccNotActivated = 211,
    ClusterIdInvalid = 212,
    DeviceDoesNotSupportEmcc = 213,
    LoginTypeInvalid = 215,
    DnHasMultipleUsers = 216,
}

impl EmCode {
    /// The number on the phone.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }
}
