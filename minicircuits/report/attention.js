/* The page of `report.attention`: the explorer alone. */

byId("notices").append(...page.notices.map(text => el("p", {class: "notice"}, text)));
openTexts();
explorer(byId("explorer"));
