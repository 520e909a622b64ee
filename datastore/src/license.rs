//! License expressions and what they permit.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use spdx::expression::{ExprNode, Operator};
use spdx::{AdditionItem, Expression, LicenseItem, LicenseReq};

/// What a license asks of those who use a text, from the least to the most restrictive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LicenseClass {
    /// Public domain, or attribution at most: CC0, CC-BY, MIT, Apache.
    Permissive,
    /// Derived works under the same terms: CC-BY-SA.
    ShareAlike,
    /// Software copyleft: GPL, LGPL, AGPL, MPL.
    Copyleft,
    /// Non-commercial use only: CC-BY-NC and the like.
    NonCommercial,
    /// No derived works: CC-BY-ND, CC-BY-NC-ND.
    NoDerivatives,
    /// Nothing is known about it; what is unknown is not permitted.
    Unknown,
}

/// What a license asks of those who use a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obligation {
    /// Name title, author, source and license.
    Attribution,
    /// Pass adaptations on under the same terms.
    ShareAlike,
    /// Use for non-commercial purposes alone.
    NonCommercial,
    /// Pass no adaptations on.
    NoDerivatives,
}

/// A license as an SPDX expression, with its class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct License {
    expression: String,
    class: LicenseClass,
}

/// A string that is no SPDX expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{expression:?} is not an SPDX license expression ({reason}): expected one like \"CC-BY-SA-4.0\" or \"MIT OR Apache-2.0\""
)]
pub struct LicenseError {
    expression: String,
    reason: String,
}

/// References outside the SPDX list that are known, as far as they are known.
const REFERENCES: &[(&str, LicenseClass)] =
    &[("public-domain", LicenseClass::Permissive), ("brown-non-commercial", LicenseClass::NonCommercial)];

impl License {
    /// The expression as it was given.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The class: of an `AND` the most restrictive part counts, of an `OR` the least restrictive one.
    pub fn class(&self) -> LicenseClass {
        self.class
    }

    /// What it asks of those who use the text, ascending. Of an `OR`, what the least demanding side asks; of an `AND`,
    /// what both ask. Of a license that is unknown nothing is known.
    pub fn obligations(&self) -> Vec<Obligation> {
        let Ok(expression) = Expression::parse(&self.expression) else { return Vec::new() };
        let mut stack: Vec<(LicenseClass, BTreeSet<Obligation>)> = Vec::new();
        for node in expression.iter() {
            match node {
                ExprNode::Req(required) => stack.push((class_of(&required.req), obligations_of(&required.req))),
                ExprNode::Op(operator) => {
                    let (Some(b), Some(a)) = (stack.pop(), stack.pop()) else { return Vec::new() };
                    stack.push(match operator {
                        Operator::And => (a.0.max(b.0), a.1.union(&b.1).copied().collect()),
                        Operator::Or if (b.0, b.1.len()) < (a.0, a.1.len()) => b,
                        Operator::Or => a,
                    });
                }
            }
        }
        stack.pop().map(|(_, obligations)| obligations.into_iter().collect()).unwrap_or_default()
    }

    /// Whether a model may be trained on such a text: permissive and share-alike licenses alone.
    pub fn may_train(&self) -> bool {
        self.class <= LicenseClass::ShareAlike
    }
}

impl FromStr for License {
    type Err = LicenseError;

    fn from_str(text: &str) -> Result<License, LicenseError> {
        let refuse = |reason: String| LicenseError { expression: text.to_owned(), reason };
        let expression = Expression::parse(text).map_err(|e| refuse(e.reason.to_string()))?;
        let mut stack = Vec::new();
        for node in expression.iter() {
            match node {
                ExprNode::Req(required) => stack.push(class_of(&required.req)),
                ExprNode::Op(operator) => {
                    let (Some(b), Some(a)) = (stack.pop(), stack.pop()) else {
                        return Err(refuse("an operator lacks an operand".to_owned()));
                    };
                    stack.push(match operator {
                        Operator::And => a.max(b),
                        Operator::Or => a.min(b),
                    });
                }
            }
        }
        match stack.pop() {
            Some(class) => Ok(License { expression: text.to_owned(), class }),
            None => Err(refuse("it is empty".to_owned())),
        }
    }
}

/// Licenses that ask for attribution at most. A license is permissive because it stands here: no database knows the
/// copyleft ones completely.
const PERMISSIVE: &[&str] = &[
    "0BSD",
    "AFL-3.0",
    "Apache-1.1",
    "Apache-2.0",
    "Artistic-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-2-Clause-Patent",
    "BSD-3-Clause",
    "BSD-3-Clause-Clear",
    "BSL-1.0",
    "BlueOak-1.0.0",
    "CC-BY-1.0",
    "CC-BY-2.0",
    "CC-BY-2.5",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-PDDC",
    "CC-PDM-1.0",
    "CC0-1.0",
    "CDLA-Permissive-1.0",
    "CDLA-Permissive-2.0",
    "ECL-2.0",
    "FSFAP",
    "HPND",
    "ICU",
    "ISC",
    "MIT",
    "MIT-0",
    "MIT-Modern-Variant",
    "NCSA",
    "ODC-By-1.0",
    "OGL-UK-3.0",
    "PDDL-1.0",
    "PostgreSQL",
    "Python-2.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "UPL-1.0",
    "W3C",
    "WTFPL",
    "X11",
    "Zlib",
];

fn class_of(required: &LicenseReq) -> LicenseClass {
    // An exception of the SPDX list adds permissions; an addition of one's own may take some away.
    if let Some(AdditionItem::Other(_)) = &required.addition {
        return LicenseClass::Unknown;
    }
    let id = match &required.license {
        LicenseItem::Spdx { id, .. } => id,
        LicenseItem::Other(other) if other.doc_ref.is_some() => return LicenseClass::Unknown,
        LicenseItem::Other(other) => {
            let known = REFERENCES.iter().find(|(name, _)| *name == other.lic_ref);
            return known.map_or(LicenseClass::Unknown, |(_, class)| *class);
        }
    };
    let parts: Vec<&str> = id.name.split('-').collect();
    match () {
        () if parts.contains(&"ND") => LicenseClass::NoDerivatives,
        () if parts.contains(&"NC") => LicenseClass::NonCommercial,
        () if id.name.starts_with("CC-BY-SA") || id.name == "ODbL-1.0" => LicenseClass::ShareAlike,
        () if PERMISSIVE.contains(&id.name) => LicenseClass::Permissive,
        () if id.is_copyleft() => LicenseClass::Copyleft,
        () => LicenseClass::Unknown,
    }
}

/// Licenses that give a text away without conditions.
const NO_CONDITIONS: &[&str] = &["0BSD", "CC-PDDC", "CC-PDM-1.0", "CC0-1.0", "MIT-0", "PDDL-1.0", "Unlicense", "WTFPL"];

fn obligations_of(required: &LicenseReq) -> BTreeSet<Obligation> {
    let name = match &required.license {
        LicenseItem::Spdx { id, .. } => id.name,
        LicenseItem::Other(other) => &other.lic_ref,
    };
    let class = class_of(required);
    let free = NO_CONDITIONS.contains(&name) || name == "public-domain";
    let parts: Vec<&str> = name.split('-').collect();
    let mut obligations = BTreeSet::new();
    let mut add = |condition, obligation| {
        if condition {
            obligations.insert(obligation);
        }
    };
    add(!free && class != LicenseClass::Unknown, Obligation::Attribution);
    let alike = matches!(class, LicenseClass::ShareAlike | LicenseClass::Copyleft) || parts.contains(&"SA");
    add(alike, Obligation::ShareAlike);
    add(class == LicenseClass::NonCommercial || parts.contains(&"NC"), Obligation::NonCommercial);
    add(class == LicenseClass::NoDerivatives, Obligation::NoDerivatives);
    obligations
}

impl TryFrom<String> for License {
    type Error = LicenseError;

    fn try_from(text: String) -> Result<License, LicenseError> {
        text.parse()
    }
}

impl From<License> for String {
    fn from(license: License) -> String {
        license.expression
    }
}

impl fmt::Display for License {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.expression)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_common_licenses() {
        use LicenseClass::*;
        for (expression, class) in [
            ("CC0-1.0", Permissive),
            ("CC-BY-4.0", Permissive),
            ("MIT", Permissive),
            ("Apache-2.0 WITH LLVM-exception", Permissive),
            ("LicenseRef-public-domain", Permissive),
            ("CC-BY-SA-3.0", ShareAlike),
            ("GPL-3.0-only", Copyleft),
            ("AGPL-3.0-or-later", Copyleft),
            ("CC-BY-NC-3.0", NonCommercial),
            ("CC-BY-NC-SA-4.0", NonCommercial),
            ("LicenseRef-brown-non-commercial", NonCommercial),
            ("CC-BY-NC-ND-4.0", NoDerivatives),
            ("CC-BY-ND-4.0", NoDerivatives),
            ("LicenseRef-found-on-a-page", Unknown),
            ("MIT OR GPL-2.0-only", Permissive),
            ("MIT AND CC-BY-NC-4.0", NonCommercial),
            ("CC-BY-SA-4.0 AND (GPL-3.0-only OR MIT)", ShareAlike),
            ("LicenseRef-x AND CC0-1.0", Unknown),
            ("EPL-2.0", Unknown),
            ("RPL-1.5", Unknown),
            ("Apache-2.0 WITH AdditionRef-Commons-Clause", Unknown),
            ("DocumentRef-x:LicenseRef-public-domain", Unknown),
        ] {
            let license: License = expression.parse().unwrap();
            assert_eq!(license.class(), class, "{expression}");
            assert_eq!(license.may_train(), matches!(class, Permissive | ShareAlike), "{expression}");
        }
    }

    #[test]
    fn obligations_of_common_licenses() {
        use Obligation::*;
        for (expression, obligations) in [
            ("CC0-1.0", &[][..]),
            ("LicenseRef-public-domain", &[]),
            ("CC-BY-4.0", &[Attribution]),
            ("CC-BY-SA-4.0", &[Attribution, ShareAlike]),
            ("GPL-3.0-only", &[Attribution, ShareAlike]),
            ("CC-BY-NC-SA-3.0", &[Attribution, ShareAlike, NonCommercial]),
            ("LicenseRef-brown-non-commercial", &[Attribution, NonCommercial]),
            ("CC-BY-NC-ND-4.0", &[Attribution, NonCommercial, NoDerivatives]),
            ("GPL-2.0-only OR CC0-1.0", &[]),
            ("MIT AND CC-BY-SA-4.0", &[Attribution, ShareAlike]),
            ("MIT OR CC0-1.0", &[]),
        ] {
            assert_eq!(expression.parse::<License>().unwrap().obligations(), obligations, "{expression}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["", "public domain", "CC BY 4.0", "MIT OR", "All rights reserved"] {
            let message = text.parse::<License>().unwrap_err().to_string();
            assert!(message.contains("SPDX") && message.contains(text), "{message}");
        }
    }
}
