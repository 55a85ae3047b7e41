"""How much anybody may ask of the hub, and in what time: the rule, the numbers, where is counted, and who is asking."""
