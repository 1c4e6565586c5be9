//! The table of EM codes. A code that is not here does not exist.

use super::{
    GrpcCode::{
        AlreadyExists, FailedPrecondition, Internal, InvalidArgument, NotFound, PermissionDenied,
        ResourceExhausted, Unauthenticated, Unavailable, Unknown,
    },
    Raised::{Later, Never, Yes},
    Row,
};

/// Makes the enum, the list of all and the way from a code to its row out of one text, so that none of them
/// can lack a code.
macro_rules! table {
    ($($code:ident = $number:literal { short: $short:literal, $($field:ident: $value:expr,)+ })+) => {
        /// Every EM code: those of the EM service (0 to 47) and of the EM application (201 to 216).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum EmCode {
            $(#[doc = concat!($short, ".")] $code = $number,)+
        }

        impl EmCode {
            /// Every code, by number.
            pub const ALL: &'static [Self] = &[$(Self::$code),+];

            pub(super) const fn row(self) -> &'static Row {
                match self {
                    $(Self::$code => &Row { short: $short, $($field: $value),+ },)+
                }
            }
        }
    };
}

table! {
    UnknownError = 0 {
        short: "Unknown error",
        name: "UNKNOWN_ERROR",
        login: "Login is unavailable(0)",
        logout: "Logout is unavailable(0)",
        advice: "Try again. If it stays, give the reference to your help desk.",
        hint: "Look the reference up in the log of both clusters, and see `emccd cluster status` for a link that is in trouble.",
        grpc: Unknown,
        raised: Yes,
    }
    ErrorOnParsing = 1 {
        short: "Error on parsing, or no protocol version in common",
        name: "ERROR_ON_PARSING",
        login: "Login is unavailable(1)",
        logout: "Logout is unavailable(1)",
        advice: "Sign in with your user ID instead, or tell your help desk.",
        hint: "The two clusters speak different protocol versions or the request was malformed; `emccd cluster status` shows both ranges and which side to upgrade.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
    EmccAuthenticationError = 2 {
        short: "EMCC authentication error",
        name: "EMCC_AUTHENTICATION_ERROR",
        login: "Login is unavailable(2)",
        logout: "Logout is unavailable(2)",
        advice: "Check your user ID and PIN and try again.",
        hint: "The home cluster refused the PIN or the account; its operator sees why with `emccd user show USER`.",
        grpc: Unauthenticated,
        raised: Yes,
    }
    InvalidAppUser = 3 {
        short: "Invalid application user",
        name: "INVALID_APP_USER",
        login: "Login is unavailable(3)",
        logout: "Logout is unavailable(3)",
        advice: "Tell your help desk: the program that signed you in is not set up.",
        hint: "The application user of the calling program is unknown or its password is wrong; `emccd config show` tells which API is on.",
        grpc: Unauthenticated,
        raised: Later("with the EM API"),
    }
    PolicyValidationError = 4 {
        short: "Policy validation error",
        name: "POLICY_VALIDATION_ERROR",
        login: "Login is unavailable(4)",
        logout: "Logout is unavailable(4)",
        advice: "Tell your help desk: your clusters do not agree about you.",
        hint: "Two clusters claim the same user, or a rule of this cluster could not be checked; compare `emccd user show USER` on both and mend the user patterns of the peers.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
    DeviceLogonDisabledAtService = 5 {
        short: "Device logon disabled, seen by the EM service",
        name: "DEVICE_LOGON_DISABLED_AT_SERVICE",
        login: "Login is unavailable(5)",
        logout: "Logout is unavailable(5)",
        advice: "Use another phone; this one does not allow signing in.",
        hint: "Extension mobility is off on this phone; see `emccd device show DEVICE` and switch `extension-mobility` on.",
        grpc: FailedPrecondition,
        raised: Later("with the EM API"),
    }
    DatabaseError = 6 {
        short: "Database error",
        name: "DATABASE_ERROR",
        login: "Login is unavailable(6)",
        logout: "Logout is unavailable(6)",
        advice: "Wait a minute and try again.",
        hint: "The store could not read or write; see the log for the cause, check the disk, and try `emccd session list`.",
        grpc: Internal,
        raised: Yes,
    }
    LogoutRequestError = 7 {
        short: "Logout request error",
        name: "LOGOUT_REQUEST_ERROR",
        login: "Login is unavailable(7)",
        logout: "Logout is unavailable(7)",
        advice: "Try again. If it stays, give the reference to your help desk.",
        hint: "An automatic logout could not be set; see `emccd session list`.",
        grpc: Internal,
        raised: Never("the end of a session is data in its own row: it can't fail apart from the login"),
    }
    QueryTypeUndetermined = 8 {
        short: "Query type undetermined",
        name: "QUERY_TYPE_UNDETERMINED",
        login: "Login is unavailable(8)",
        logout: "Logout is unavailable(8)",
        advice: "Tell your help desk: the program that asked is not set up.",
        hint: "A program asked neither about a user nor about a device; mend the program, and compare with `emccd session list`.",
        grpc: InvalidArgument,
        raised: Later("with the EM API"),
    }
    DirectoryUserInfoError = 9 {
        short: "Directory user information error",
        name: "DIRECTORY_USER_INFO_ERROR",
        login: "Login is unavailable(9)",
        logout: "Logout is unavailable(9)",
        advice: "Wait a minute and try again.",
        hint: "The directory behind the sign-in could not be asked; check it, then `emccd user show USER`.",
        grpc: Unavailable,
        raised: Later("with directories outside the store"),
    }
    NoProxyRights = 10 {
        short: "User lacks application proxy rights",
        name: "NO_PROXY_RIGHTS",
        login: "Login is unavailable(10)",
        logout: "Logout is unavailable(10)",
        advice: "Tell your help desk: the program may not sign others in.",
        hint: "The application user may not act for others; give it proxy rights with `emccd apply FILE`.",
        grpc: PermissionDenied,
        raised: Later("with the EM API"),
    }
    DeviceDoesNotExist = 11 {
        short: "Device does not exist",
        name: "DEVICE_DOES_NOT_EXIST",
        login: "Login is unavailable(11)",
        logout: "Logout is unavailable(11)",
        advice: "Use another phone, and tell your help desk about this one.",
        hint: "This cluster has no device of that name; see `emccd device list` and add it with `emccd apply FILE`.",
        grpc: NotFound,
        raised: Yes,
    }
    DeviceProfileNotFound = 12 {
        short: "Device profile not found",
        name: "DEVICE_PROFILE_NOT_FOUND",
        login: "Login is unavailable(12)",
        logout: "Logout is unavailable(12)",
        advice: "Tell your help desk: your account has no device profile.",
        hint: "The user has no device profile at home; see `emccd user show USER` there and add one with `emccd apply FILE`.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
    AnotherUserLoggedIn = 18 {
        short: "Another user logged in",
        name: "ANOTHER_USER_LOGGED_IN",
        login: "Login is unavailable(18)",
        logout: "Logout is unavailable(18)",
        advice: "Log the other user out first, or use another phone.",
        hint: "Somebody is on that phone; see `emccd session list` and end it with `emccd session logout ID`.",
        grpc: AlreadyExists,
        raised: Yes,
    }
    NoUserLoggedIn = 19 {
        short: "No user logged in",
        name: "NO_USER_LOGGED_IN",
        login: "Login is unavailable(19)",
        logout: "Logout is unavailable(19)",
        advice: "Nobody is signed in on this phone.",
        hint: "There was nothing to end; `emccd session list` shows who is where.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
    HotelingFlagError = 20 {
        short: "Hoteling flag error",
        name: "HOTELING_FLAG_ERROR",
        login: "Login is unavailable(20)",
        logout: "Logout is unavailable(20)",
        advice: "Use another phone, and tell your help desk about this one.",
        hint: "Whether the phone allows extension mobility could not be read; see `emccd device show DEVICE`.",
        grpc: FailedPrecondition,
        raised: Never("the switch is part of the device's row: 22 says that it is off, 6 that it can't be read"),
    }
    HotelingStatusError = 21 {
        short: "Hoteling status error",
        name: "HOTELING_STATUS_ERROR",
        login: "Login is unavailable(21)",
        logout: "Logout is unavailable(21)",
        advice: "Wait a minute and try again.",
        hint: "Who is on the phone could not be read; see `emccd session list`.",
        grpc: Internal,
        raised: Never("who is on a phone is read together with everything else: 6 says that it can't be"),
    }
    DeviceLogonDisabled = 22 {
        short: "Device logon disabled",
        name: "DEVICE_LOGON_DISABLED",
        login: "Login is unavailable(22)",
        logout: "Logout is unavailable(22)",
        advice: "Use another phone; this one does not allow signing in.",
        hint: "Extension mobility is off on this phone; see `emccd device show DEVICE` and switch `extension-mobility` on with `emccd apply FILE`.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
    UserDoesNotExist = 23 {
        short: "User does not exist",
        name: "USER_DOES_NOT_EXIST",
        login: "Login is unavailable(23)",
        logout: "Logout is unavailable(23)",
        advice: "Check what you typed: no cluster knows this user.",
        hint: "Neither this cluster nor any peer has such a user, and every peer has answered; compare with `emccd user list` at the user's home. Shown as a wrong PIN instead where the parameter unknown-user-answer is as-wrong-pin.",
        grpc: NotFound,
        raised: Yes,
    }
    UserLoggedInElsewhere = 25 {
        short: "User logged in elsewhere",
        name: "USER_LOGGED_IN_ELSEWHERE",
        login: "Multi-Login Not Allowed (25)",
        logout: "Logout is unavailable(25)",
        advice: "Log out on the other phone first.",
        hint: "The user is on another phone and the policy allows one; see `emccd session list` at home.",
        grpc: AlreadyExists,
        raised: Yes,
    }
    Busy = 26 {
        short: "Busy, please try again",
        name: "BUSY",
        login: "Login is unavailable(26)",
        logout: "Logout is unavailable(26)",
        advice: "Wait a few seconds and try again.",
        hint: "The limit of concurrent requests or of attempts was reached; see `emccd param show maximum-concurrent-requests`.",
        grpc: ResourceExhausted,
        raised: Yes,
    }
    ChangePassword = 27 {
        short: "Change password",
        name: "CHANGE_PASSWORD",
        login: "Login is unavailable(27)",
        logout: "Logout is unavailable(27)",
        advice: "Change your password first, then sign in.",
        hint: "The credential must be changed before it can be used; see `emccd user show USER`.",
        grpc: FailedPrecondition,
        raised: Later("with the EM API"),
    }
    UntrustedIp = 28 {
        short: "Untrusted IP address",
        name: "UNTRUSTED_IP",
        login: "Login is unavailable(28)",
        logout: "Logout is unavailable(28)",
        advice: "Use a phone inside the company network.",
        hint: "The caller's address is not trusted while addresses are being checked; see `emccd param show trusted-ips`.",
        grpc: PermissionDenied,
        raised: Yes,
    }
    RisDown = 29 {
        short: "Real-time information down",
        name: "RIS_DOWN",
        login: "Login is unavailable(29)",
        logout: "Logout is unavailable(29)",
        advice: "Wait a minute and try again.",
        hint: "Real-time device data can't be had; see `emccd device list`.",
        grpc: Unavailable,
        raised: Never("nothing here depends on a real-time information service"),
    }
    ProxyNotAllowed = 30 {
        short: "Proxy not allowed",
        name: "PROXY_NOT_ALLOWED",
        login: "Login is unavailable(30)",
        logout: "Logout is unavailable(30)",
        advice: "Use a phone that reaches the service without a proxy.",
        hint: "The request came through a proxy and those are not allowed; see `emccd param show allow-proxy`.",
        grpc: PermissionDenied,
        raised: Yes,
    }
    EmccNotActivatedForUser = 31 {
        short: "EMCC not activated for the user",
        name: "EMCC_NOT_ACTIVATED_FOR_USER",
        login: "Login is unavailable(31)",
        logout: "Logout is unavailable(31)",
        advice: "Tell your help desk: you may only sign in at your own site.",
        hint: "The user may not roam between clusters; see `emccd user show USER` at home and switch `emcc` on with `emccd apply FILE`.",
        grpc: PermissionDenied,
        raised: Yes,
    }
    DeviceDoesNotSupportEmccAtService = 32 {
        short: "Device does not support EMCC, seen by the EM service",
        name: "DEVICE_DOES_NOT_SUPPORT_EMCC_AT_SERVICE",
        login: "Login is unavailable(32)",
        logout: "Logout is unavailable(32)",
        advice: "Use another phone; this model can't be used by visitors.",
        hint: "The phone's model lacks cross-cluster support; see `emccd device show DEVICE`.",
        grpc: FailedPrecondition,
        raised: Never("213 says the same, before anything is asked of another cluster"),
    }
    NoFreeBaseDevice = 33 {
        short: "No free EMCC base device",
        name: "NO_FREE_BASE_DEVICE",
        login: "Login is unavailable(33)",
        logout: "Logout is unavailable(33)",
        advice: "Try again later: your home cluster has no free place.",
        hint: "Every base device of the home cluster is in use; see `emccd base list` there and add more with `emccd apply FILE`.",
        grpc: ResourceExhausted,
        raised: Yes,
    }
    VisitingClusterUnknown = 35 {
        short: "Visiting cluster information is not present in home cluster",
        name: "VISITING_CLUSTER_UNKNOWN",
        login: "Login is unavailable(35)",
        logout: "Logout is unavailable(35)",
        advice: "Tell your help desk: your home does not know this site.",
        hint: "Home no longer has a record of the visiting cluster; a moment later it no longer accepts its certificate either, and the code is 208. To have it back, add it there with `emccd cluster add`.",
        grpc: PermissionDenied,
        raised: Yes,
    }
    NoRemoteCluster = 36 {
        short: "No remote cluster",
        name: "NO_REMOTE_CLUSTER",
        login: "Login is unavailable(36)",
        logout: "Logout is unavailable(36)",
        advice: "Check what you typed: this site knows only its own users.",
        hint: "The user is not local and no peer is configured; add one with `emccd cluster add`.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
    DuplicateDeviceName = 37 {
        short: "Duplicate device name",
        name: "DUPLICATE_DEVICE_NAME",
        login: "Login is Unavailable (37)",
        logout: "Logout is Unavailable (37)",
        advice: "Use another phone, and tell your help desk about this one.",
        hint: "Both clusters have a device of that name; compare `emccd device show DEVICE` on both and rename one.",
        grpc: AlreadyExists,
        raised: Yes,
    }
    EmccNotAllowed = 38 {
        short: "EMCC not allowed",
        name: "EMCC_NOT_ALLOWED",
        login: "Login is unavailable(38)",
        logout: "Logout is unavailable(38)",
        advice: "Tell your help desk: your home does not allow visits here.",
        hint: "Home has the visiting cluster disabled, or does not allow logins from it; see `emccd cluster list` there and allow it with `emccd cluster set ID --enabled true --allow-emcc true`. For a minute at most also while one of the two removes the other, for a moment after home has taken back its trust in the visiting cluster or in the certificate that it shows, and for a login that was under way when the visiting cluster disabled or removed home.",
        grpc: PermissionDenied,
        raised: Yes,
    }
    TftpNotConfigured = 39 {
        short: "TFTP server not configured",
        name: "TFTP_NOT_CONFIGURED",
        login: "Login is unavailable(39)",
        logout: "Logout is unavailable(39)",
        advice: "Tell your help desk: your home cluster is not fully set up.",
        hint: "The home cluster has no TFTP server for visitors' phones; add one to the device pool with `emccd apply FILE`.",
        grpc: FailedPrecondition,
        raised: Later("with the home's check of its own settings"),
    }
    NoResponseFromRemoteHost = 40 {
        short: "No response from remote host",
        name: "NO_RESPONSE_FROM_REMOTE_HOST",
        login: "Login is unavailable(40)",
        logout: "Logout is unavailable(40)",
        advice: "Wait a minute and try again: your home cluster is silent.",
        hint: "A peer did not answer in time; see `emccd cluster status` for which one and since when.",
        grpc: Unavailable,
        raised: Yes,
    }
    PinChangeRequired = 41 {
        short: "PIN change is required",
        name: "PIN_CHANGE_REQUIRED",
        login: "PIN change is required",
        logout: "Logout is unavailable(41)",
        advice: "Ask your help desk for a new PIN, then sign in with it.",
        hint: "The PIN was right but must be changed; give the user a new one with `emccd apply FILE`.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
    InvalidClusterId = 42 {
        short: "Invalid cluster ID",
        name: "INVALID_CLUSTER_ID",
        login: "Login is unavailable(42)",
        logout: "Logout is unavailable(42)",
        advice: "Tell your help desk: the clusters do not recognise each other.",
        hint: "A caller claimed another cluster than its certificate identifies; compare `emccd trust list` with the `cluster-id` in that cluster's `emccd config show`.",
        grpc: Unauthenticated,
        raised: Yes,
    }
    DeviceSecurityModeError = 43 {
        short: "Device security mode error",
        name: "DEVICE_SECURITY_MODE_ERROR",
        login: "Login is unavailable(43)",
        logout: "Logout is unavailable(43)",
        advice: "Use another phone, and tell your help desk about this one.",
        hint: "The phone is secure, but its cluster is not in mixed mode; see `emccd device show DEVICE`, and `federation.security-mode` in `emccd config show`.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
    ClusterIdNotConfigured = 44 {
        short: "Cluster ID not configured",
        name: "CLUSTER_ID_NOT_CONFIGURED",
        login: "Login is unavailable(44)",
        logout: "Logout is unavailable(44)",
        advice: "Tell your help desk: this site is not fully set up.",
        hint: "The cluster ID is missing or invalid; see `emccd config check`.",
        grpc: FailedPrecondition,
        raised: Never("a node with an invalid cluster ID does not start"),
    }
    RemoteVersionNotSupported = 45 {
        short: "Remote cluster version not supported",
        name: "REMOTE_VERSION_NOT_SUPPORTED",
        login: "Login is unsuccessful(45)",
        logout: "Logout is unavailable(45)",
        advice: "Use a phone without encryption, or tell your help desk.",
        hint: "The phone is secure and one of the two clusters can't serve secure phones; see `emccd cluster status` for the software of both, and upgrade the older one.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
    RemoteSecurityModeNotSupported = 46 {
        short: "Remote cluster security mode not supported",
        name: "REMOTE_SECURITY_MODE_NOT_SUPPORTED",
        login: "Login is unsuccessful(46)",
        logout: "Logout is unavailable(46)",
        advice: "Use a phone without encryption, or tell your help desk.",
        hint: "The phone is secure and the home cluster is not in mixed mode; see `federation.security-mode` in `emccd config show` there.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
    DnHasMultipleUsersRemote = 47 {
        short: "Extension has multiple users, at another cluster",
        name: "DN_HAS_MULTIPLE_USERS_REMOTE",
        login: "DN has multiple users(47)",
        logout: "Logout is unavailable(47)",
        advice: "Sign in with your user ID instead.",
        hint: "The extension is the primary one of several users; find them with `emccd user list` at the clusters that the log names.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
    AuthenticationError = 201 {
        short: "Authentication error",
        name: "AUTHENTICATION_ERROR",
        login: "Please try to login again (201)",
        logout: "Logout is unavailable(201)",
        advice: "Check your user ID and PIN and try again.",
        hint: "The PIN was wrong or the account may not sign in; `emccd user show USER` tells which. Where the parameter unknown-user-answer is as-wrong-pin, there may also be no such user; the log tells.",
        grpc: Unauthenticated,
        raised: Yes,
    }
    BlankUserIdOrPin = 202 {
        short: "Blank user ID or PIN",
        name: "BLANK_USER_ID_OR_PIN",
        login: "Please try to login again (202)",
        logout: "Logout is unavailable(202)",
        advice: "Type both your user ID and your PIN.",
        hint: "The form came without a user ID or PIN; if it did from a script, mend its `userid` and `seq`, and try it in `emccd lab`.",
        grpc: InvalidArgument,
        raised: Yes,
    }
    DirectoryServerError = 204 {
        short: "Directory server error",
        name: "DIRECTORY_SERVER_ERROR",
        login: "Login is unavailable (204)",
        logout: "Logout is unavailable (204)",
        advice: "Wait a minute and try again.",
        hint: "The directory could not authenticate the user; check it, then `emccd user show USER`.",
        grpc: Unavailable,
        raised: Later("with directories outside the store"),
    }
    UserProfileAbsent = 205 {
        short: "User profile absent",
        name: "USER_PROFILE_ABSENT",
        login: "Login is unavailable (205)",
        logout: "Logout is unavailable (205)",
        advice: "Tell your help desk: your account has no device profile.",
        hint: "The local user has no device profile; see `emccd user show USER` and add one with `emccd apply FILE`.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
    DeviceNameEmpty = 207 {
        short: "Device name empty",
        name: "DEVICE_NAME_EMPTY",
        login: "Login is unavailable(207)",
        logout: "Logout is unavailable(207)",
        advice: "Tell your help desk: this phone's service address is wrong.",
        hint: "The request named no device; the phone's service URL must end in `?device=#DEVICENAME#&EMCC=#EMCC#`; `emccd config show` has the phone listener.",
        grpc: InvalidArgument,
        raised: Yes,
    }
    ServiceConnectionError = 208 {
        short: "EM service connection error",
        name: "SERVICE_CONNECTION_ERROR",
        login: "Login is unavailable(208)",
        logout: "Logout is unavailable(208)",
        advice: "Wait a minute and try again: another cluster can't be reached.",
        hint: "A peer could not be reached or refused our certificate; `emccd cluster status` names it and the reason, `emccd trust list` what is trusted.",
        grpc: Unavailable,
        raised: Yes,
    }
    ChangePin = 209 {
        short: "Change PIN",
        name: "CHANGE_PIN",
        login: "[209]-Change PIN",
        logout: "Logout is unavailable(209)",
        advice: "Ask your help desk for a new PIN, then sign in with it.",
        hint: "The PIN of a user of this cluster was right but must be changed; give the user a new one with `emccd apply FILE`.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
    InitFailed = 210 {
        short: "Initialisation failed",
        name: "INIT_FAILED",
        login: "Login is unavailable(210)",
        logout: "Logout is unavailable(210)",
        advice: "Wait a minute and try again.",
        hint: "The node could not start; see its log and `emccd config check`.",
        grpc: Unavailable,
        raised: Never("phones are served only once the node has started"),
    }
    EmccNotActivated = 211 {
        short: "EMCC not activated",
        name: "EMCC_NOT_ACTIVATED",
        login: "Login is unavailable(211)",
        logout: "Logout is unavailable(211)",
        advice: "Tell your help desk: this site does not serve visitors.",
        hint: "This cluster does not serve users of others; see `emccd cluster list`.",
        grpc: FailedPrecondition,
        raised: Never("there is no switch for it: without an enabled peer it is 36"),
    }
    ClusterIdInvalid = 212 {
        short: "Cluster ID is invalid",
        name: "CLUSTER_ID_INVALID",
        login: "Login is unavailable(212)",
        logout: "Logout is unavailable(212)",
        advice: "Tell your help desk: the clusters do not recognise each other.",
        hint: "A peer answered under another cluster ID than its record has; see `emccd cluster status`.",
        grpc: FailedPrecondition,
        raised: Never("a link to the wrong cluster never comes up: it is 42 or 208"),
    }
    DeviceDoesNotSupportEmcc = 213 {
        short: "Device does not support EMCC",
        name: "DEVICE_DOES_NOT_SUPPORT_EMCC",
        login: "Login is unavailable(213)",
        logout: "Logout is unavailable(213)",
        advice: "Use another phone; this model can't be used by visitors.",
        hint: "The phone's model lacks cross-cluster support, or its service URL lacks `EMCC=#EMCC#`; see `emccd device show DEVICE`.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
    LoginTypeInvalid = 215 {
        short: "Login type is invalid",
        name: "LOGIN_TYPE_INVALID",
        login: "LoginType invalid(215)",
        logout: "Logout is unavailable(215)",
        advice: "Tell your help desk: this phone's service address is wrong.",
        hint: "`loginType` in the phone's service URL must be UID, SP or DN; `emccd config show` has the phone listener.",
        grpc: InvalidArgument,
        raised: Yes,
    }
    DnHasMultipleUsers = 216 {
        short: "Extension has multiple users",
        name: "DN_HAS_MULTIPLE_USERS",
        login: "DN has multiple users(216)",
        logout: "Logout is unavailable(216)",
        advice: "Sign in with your user ID instead.",
        hint: "The extension is the primary one of several local users; find them with `emccd user list`.",
        grpc: FailedPrecondition,
        raised: Yes,
    }
}
