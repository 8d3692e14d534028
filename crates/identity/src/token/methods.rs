//! The methods of a login, and which bit stands for which of them in a token.

use base::{Fault, Result};

/// The ways to prove who one is, as bits in the order of Keystone's default configuration, and then of those that it
/// leaves to be switched on; a token has them in the cloud's own [`Order`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Methods(pub u64);

const METHODS: [&str; 12] = [
    "external",
    "password",
    "token",
    "oauth1",
    "mapped",
    "application_credential",
    "ec2credential",
    "totp",
    "openid",
    "kerberos",
    "saml2",
    "x509",
];

impl Methods {
    pub const PASSWORD: Methods = Methods(2);
    pub const TOKEN: Methods = Methods(4);
    pub const OAUTH1: Methods = Methods(8);
    pub const MAPPED: Methods = Methods(16);
    pub const APPLICATION_CREDENTIAL: Methods = Methods(32);
    pub const EC2: Methods = Methods(64);
    pub const TOTP: Methods = Methods(128);
    pub const OPENID: Methods = Methods(256);
    /// Those in which somebody shows a thing that was lent, and does not prove who they are.
    const LENT: Methods = Methods(Methods::OAUTH1.0 | Methods::APPLICATION_CREDENTIAL.0 | Methods::EC2.0);
    /// Those that a request for a token may name.
    pub const LOGIN: Methods = Methods(
        Methods::PASSWORD.0
            | Methods::TOKEN.0
            | Methods::OAUTH1.0
            | Methods::APPLICATION_CREDENTIAL.0
            | Methods::TOTP.0
            | Methods::MAPPED.0
            | Methods::OPENID.0,
    );

    /// The one of this name; none for a name that is not known.
    pub fn named(name: &str) -> Methods {
        METHODS.iter().position(|known| *known == name).map_or(Methods(0), |bit| Methods(1 << bit))
    }

    pub fn and(self, other: Methods) -> Methods {
        Methods(self.0 & other.0)
    }

    /// True where any of them shows something lent.
    pub fn lent(self) -> bool {
        self.and(Methods::LENT) != Methods(0)
    }

    pub fn with(self, other: Methods) -> Methods {
        Methods(self.0 | other.0)
    }

    pub fn contains(self, other: Methods) -> bool {
        self.0 & other.0 == other.0
    }

    /// Highest bit first, as Keystone lists them.
    pub fn names(self) -> Vec<&'static str> {
        (0..METHODS.len()).rev().filter(|bit| self.0 >> bit & 1 == 1).map(|bit| METHODS[bit]).collect()
    }
}

/// Which method each bit of a token's number means: the place of its name in `[auth] methods`, as in Keystone. Methods
/// that the setting leaves out follow, so that every token can say what it was made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order([u8; METHODS.len()]);

impl Default for Order {
    fn default() -> Order {
        Order(std::array::from_fn(|bit| bit as u8))
    }
}

impl Order {
    /// In the order of these names; all that are there are known, and none comes twice.
    pub fn parse(names: &[impl AsRef<str>]) -> Result<Order> {
        let mut order: Vec<u8> = Vec::with_capacity(METHODS.len());
        for name in names.iter().map(AsRef::as_ref) {
            let Some(method) = METHODS.iter().position(|known| *known == name) else {
                let known = METHODS.join(", ");
                return Err(Fault::invalid(format!("The method '{name}' of [auth] methods is none of {known}.")));
            };
            if order.contains(&(method as u8)) {
                return Err(Fault::invalid(format!("The method '{name}' stands twice in [auth] methods.")));
            }
            order.push(method as u8);
        }
        let rest: Vec<u8> = Order::default().0.into_iter().filter(|method| !order.contains(method)).collect();
        order.extend(rest);
        order.try_into().map(Order).map_err(|_| Fault::bug("an order of methods does not have each once"))
    }

    pub fn names(self) -> Vec<String> {
        self.0.iter().map(|method| METHODS[usize::from(*method)].to_owned()).collect()
    }

    /// As a token has them.
    pub fn number(self, methods: Methods) -> u64 {
        self.map(methods.0, |bit, method| (method, bit))
    }

    pub fn methods(self, number: u64) -> Methods {
        Methods(self.map(number, |bit, method| (bit, method)))
    }

    /// Moves bits; those that no method has stay where they are.
    fn map(self, number: u64, pair: impl Fn(usize, usize) -> (usize, usize)) -> u64 {
        let nobody = number >> METHODS.len() << METHODS.len();
        self.0.iter().enumerate().fold(nobody, |all, (bit, method)| {
            let (from, to) = pair(bit, usize::from(*method));
            all | (number >> from & 1) << to
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bits_follow_the_order_of_the_setting() {
        let order = Order::parse(&["token", "application_credential", "password"]).unwrap();
        assert_eq!(order.number(Methods::TOKEN), 1);
        assert_eq!(order.number(Methods::PASSWORD.with(Methods::APPLICATION_CREDENTIAL)), 6);
        assert!(order.methods(2).lent() && !order.methods(4).lent());
        // Those that the setting leaves out follow in their own order.
        assert_eq!(order.names()[3..6], ["external", "oauth1", "mapped"]);
        let none: [&str; 0] = [];
        assert_eq!(Order::parse(&none).unwrap(), Order::default());
        assert_eq!(Order::parse(&METHODS).unwrap(), Order::default());
    }

    #[test]
    fn an_unknown_method_and_one_that_comes_twice_are_refused() {
        for (names, said) in
            [(["password", "magic"], "'magic'"), (["token", "token"], "twice"), (["password", ""], "''")]
        {
            let fault = Order::parse(&names).unwrap_err();
            assert!(fault.message.contains(said), "{}", fault.message);
        }
    }

    proptest! {
        #[test]
        fn a_number_means_the_same_again(
            number in any::<u64>(), names in Just(METHODS.to_vec()).prop_shuffle(), length in 0..=METHODS.len()) {
            let order = Order::parse(&names[..length]).unwrap();
            prop_assert_eq!(order.number(order.methods(number)), number);
            prop_assert_eq!(Order::parse(&order.names()).unwrap(), order);
            prop_assert_eq!(Order::default().number(Methods(number)), number);
        }
    }
}
