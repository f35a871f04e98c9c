//! The texts of bounded values, as in JSON.

/// Implements [`Label`](crate::filters::Label), `as_str` and `ALL` for an enum.
macro_rules! labels {
    ($name:ident { $($variant:ident => $label:literal,)* }) => {
        impl $name {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The text in JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl crate::filters::Label for $name {
            const ALL: &'static [Self] = Self::ALL;

            fn label(self) -> &'static str {
                self.as_str()
            }
        }
    };
}

pub(crate) use labels;
