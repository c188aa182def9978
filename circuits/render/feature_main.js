/* The page of one feature: its card, and nowhere to go from it. */

$("card").replaceChildren(...sheet(read("data-card")));
