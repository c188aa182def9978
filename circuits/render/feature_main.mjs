/* The page of one feature: its card, and nowhere to go from it. */

import { $, read } from "./page_dom.mjs";
import { sheet } from "./feature_card.mjs";

$("card").replaceChildren(...sheet(read("data-card")));
