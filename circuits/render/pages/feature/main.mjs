/* The page of one feature: its card, and nowhere to go from it. */

import { $, read } from "../dom.mjs";
import { sheet } from "./card.mjs";

$("card").replaceChildren(...sheet(read("data-card")));
