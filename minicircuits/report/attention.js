"use strict";
/* The page of `report.attention`: the explorer alone. */

byId("notices").append(...page.notices.map(text => el("p", {class: "notice"}, text)));
explorer(byId("explorer"), page.texts.map(text => givenText(text)), 0, page.shown_heads.length - 1,
         page.texts[0].tokens.length - 1);
