//! What is asked of passwords and logins: Keystone's `[security_compliance]`. Everything is off unless it is set.

/// The settings, under Keystone's names.
#[derive(Clone, Debug)]
pub struct Compliance {
    /// A user with this many failed logins in a row is locked; none: never.
    pub lockout_failure_attempts: Option<u32>,
    /// How long a locked user stays so, in seconds.
    pub lockout_duration_s: i64,
    /// How many of a user's last passwords, the present one included, the user may not choose again.
    pub unique_last_password_count: usize,
    /// How many days a password must have been used before its user may change it.
    pub minimum_password_age_days: i64,
    /// How many days a password is good for; none: for ever.
    pub password_expires_days: Option<i64>,
    /// What a password must match.
    pub password_regex: Option<String>,
    /// The same for people.
    pub password_regex_description: Option<String>,
    /// A password that somebody else has set must be changed by the user before it is good for anything.
    pub change_password_upon_first_use: bool,
}

impl Default for Compliance {
    fn default() -> Self {
        Compliance {
            lockout_failure_attempts: None,
            lockout_duration_s: 1800,
            unique_last_password_count: 0,
            minimum_password_age_days: 0,
            password_expires_days: None,
            password_regex: None,
            password_regex_description: None,
            change_password_upon_first_use: false,
        }
    }
}
