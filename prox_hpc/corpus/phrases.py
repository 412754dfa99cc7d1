"""The words of the generated web that are not its main text: boilerplate, adverts, spam, and headings that mislead.

Each bank is split by `share`: every third phrase belongs to the test sites alone and the others to the train sites, so
a refiner is measured on wordings it has not seen. `[a|b]` is decided once per site, `{slots}` are filled on each page.
The banks overlap on purpose, with each other and with the main text: long sentences that are noise, short lines that
are not, menu words in headings.
"""

from typing import Final, Literal

Sites = Literal["train", "test"]


def share(bank: tuple[str, ...], sites: Sites) -> tuple[str, ...]:
    """The phrases of a bank that sites of this half use: every third for test, the rest for train."""
    return tuple(phrase for i, phrase in enumerate(bank) if (i % 3 == 2) == (sites == "test"))


# Single menu words are what all real sites have in common; each site takes some of them.
MENU: Final = (
    "Home", "About", "News", "Contact", "Archive", "Shop", "Events", "Gallery", "Help", "Search", "Log in",
    "Register", "Subscribe", "Support", "Weather", "Sport", "Travel", "Culture", "Science", "Letters", "Jobs",
    "Video", "Podcasts", "Newsletter", "My account", "Towns", "People", "Music", "Wildlife", "Maps", "Forum",
    "Donate", "Press", "FAQ", "Blog", "Site map", "Opinion", "Recipes", "Calendar", "Basket", "Menu", "Sign in",
    "Local", "Partners", "Sections", "More",
)  # fmt: skip

MENU_SENTENCES: Final = (
    "What we do and why it matters", "Tell us your story.", "How can we help you today?",
    "Read the latest issue online", "Find a branch near you", "Plan your visit.", "Join us and make a difference.",
    "Where to buy our books", "Write for us", "Meet the people behind the pages.",
    "All you need to know before you come", "Have a question? Ask us.", "See what is on this week",
    "Give a year of reading to a friend.", "Work with us in our new office", "Become a member in two minutes",
    "Our history in pictures.", "Switch to large print",
)  # fmt: skip

LOGIN: Final = (
    "Welcome, guest! [Log in|Sign in] or [register|create an account]",
    "You are not [logged in|signed in].",
    "[Hello|Hi] guest, please [sign in|log in] to continue.",
    "Skip to [main content|content]",
    "[Search|Search this site]: [Go|Find]",
    "Jump to [navigation|content], jump to search",
    "Text size: [A A A|small medium large]",
    "Language: [English|EN] [Deutsch|DE] [Français|FR]",
    "Skip navigation and go to the [article|text]",
    "{date} | [Today's edition|Latest edition] | [Print|E-paper]",
    "Toggle [navigation|menu]",
    "Loading [search|menu] ... please wait",
)

COOKIES: Final = (
    "We use cookies to [improve your experience|make this site work] and to [show you relevant content|count visits].",
    "This website stores [small files|cookies] on your [computer|device]. By continuing you [accept|agree to] this.",
    "{site} and its partners use cookies to [measure visits|understand our audience] and to [tailor adverts|keep you"
    " logged in].",
    "By using this site you agree to our [use of cookies|privacy policy], which you can [change|withdraw] at any time.",
    "Your privacy is important to us, so please [choose|tell us] which cookies we may [set|store].",
    "To give you the best experience, {site} needs your consent before it can [save|store] data on your device.",
    "Some of the cookies we set are [necessary|essential], others help us to [improve|pay for] this service.",
    "Please read how we and {n} [partners|vendors] process [personal data|your data] before you continue.",
    "We value your privacy. With your agreement we and our partners use [cookies|similar technology] to process data.",
    "Cookies help us deliver our [services|pages]. By using them you agree to our [terms|use of cookies].",
    "This notice tells you that we [keep|save] cookies; it will [disappear|close] when you scroll on.",
    "Before you go on: our site remembers your [choices|settings] with cookies, and you may [refuse|decline] that.",
)

COOKIE_BUTTONS: Final = (
    "Accept all", "Reject all", "OK", "Accept", "Manage preferences", "Got it!", "Settings", "I agree", "Decline",
    "Learn more", "More information", "Close this notice", "Cookie settings", "Allow all", "Only necessary cookies",
)  # fmt: skip

BYLINES: Final = (
    "By {person} | {date}",
    "Posted by {person} on {date}",
    "{date} - {n} min read",
    "Written by {person}, {date}",
    "{person}, staff writer",
    "Published {date}, updated {date}",
    "Last modified on {date} by {person}",
    "{date} at {hour}:{minute} | {n} comments",
    "Text and photos: {person}",
    "Filed under: {section} | Tags: {tag}, {tag}",
    "Reviewed by {person} for {site}",
    "From our correspondent {person} [|in the field]",
)

SHARE: Final = (
    "Share this [page|article|story]", "Share on Facebook", "Tweet this", "Email this to a friend", "Print this page",
    "[Save|Bookmark] for later", "Like this? Tell others about it.", "Pin it", "Copy link", "Send by [email|mail]",
    "{n} shares", "Recommend this [article|text]", "Facebook Twitter Email Print",
    "Share: Facebook | Twitter | Pinterest", "Share via WhatsApp, mail or text message",
    "Click to share (opens in new window)", "Follow us on Instagram", "Spread the word!",
)  # fmt: skip

ADVERTS: Final = (
    "Advertisement",
    "Story continues below [advertisement|this advert]",
    "Sponsored: new [boots|kettles|lamps] for the cold season, now with free delivery.",
    "ADVERT",
    "[Our readers save|Save] {n}% on [train tickets|garden tools] this month with the code {code}.",
    "Article continues after the [break|advert]",
    "Paid content by {brand}",
    "Why does everybody in the county want a [mattress|kettle] from {brand}?",
    "Try {brand} free for {n} days, cancel when you like.",
    "{brand}: [quality|comfort] you can trust.",
    "Looking for a new [heater|bicycle]? {brand} has {n} in stock.",
    "This page is free because of our [advertisers|sponsors].",
)

NEWSLETTERS: Final = (
    "Sign up for our [weekly|monthly] newsletter and never miss a story.",
    "Get the best of {site} in your inbox every [morning|Friday].",
    "Enjoying this page? Our letter brings you [three|five] more like it each week.",
    "Join {n},000 readers who already [receive|enjoy] our emails.",
    "Enter your email address to [subscribe|receive updates].",
    "Do you like what you read? [Subscribe|Become a member] and support our work.",
    "You can [unsubscribe|leave] at any time, and we never pass on your address.",
    "Please check your inbox to [confirm|complete] your subscription.",
    "No spam, we promise. [Subscribe|Sign up] now!",
    "Support independent writing: [a year|a month] of {site} costs less than a cup of coffee.",
    "You have read {n} of your free articles this month.",
    "Our editors choose the stories worth your time, and you get them by email for nothing.",
)

RELATED_HEADS: Final = (
    "Related [stories|articles]", "You may also like", "[More|Most] from {site}", "Read [next|also]", "Most read",
    "Editor's choice", "Don't miss", "Popular now", "More like this", "Recommended for you",
    "[Latest|Newest] stories", "Others are reading",
)  # fmt: skip

RELATED: Final = (
    "{title}",
    "{title} ({n} comments)",
    "{title} - {date}",
    "Read more: {title}",
    "In pictures: the best of the {season}",
    "{n} things you did not know about {plural}",
    "Why {plural} are back, and what comes next.",
    "[Watch|Video]: a morning with the {plural}",
    "[Opinion|Comment]: we should talk about {plural}.",
    "Quiz: how well do you know your {plural}?",
    "See also: {title}",
    "The reader's guide to {plural}: part {n}",
)

COMMENTS: Final = (
    "{n} comments",
    "{person} says: I have been looking for this for [months|years], thank you!",
    "Log in to post a comment.",
    "{person} ({date}): my grandmother told it [differently|another way], but well written.",
    "Reply | Report | {n} likes",
    "{person}: first!",
    "Be the first to [comment|leave a reply].",
    "Comments are closed for this [article|page], but you can write to the editor.",
    "Great [article|page], please write more about {plural}. ({person})",
    "Leave a reply. Your email address will not be published.",
    "Thanks for this. I visit {site} every day. - {person}",
    "Sort by: newest | oldest | best",
)

AUTHORS: Final = (
    "About the author",
    "{person} writes about [rivers and trains|houses and gardens] for {site}.",
    "{person} has been with {site} since [last spring|the very first issue] and lives with two cats.",
    "Follow {person} for more [stories|articles].",
    "More by {person}",
    "{person} is a freelance writer whose [second|third] book comes out in {season}.",
    "All posts by {person}",
    "Do you have a tip for {person}? Write to the [desk|editor].",
    "[Write|Send a message] to {person}, who answers every letter.",
)

FOOTERS: Final = (
    "© {year} {site}. All rights reserved.",
    "Copyright {year} {site} | [Terms of use|Terms] | [Privacy|Privacy policy]",
    "{site} is a [registered|protected] trademark. No part of this page may be [copied|reproduced] without permission.",
    "Terms and conditions apply. Please read our [privacy|data] statement carefully.",
    "[Contact us|Write to us]: {n} Mill Lane, phone {code}",
    "The views of the authors are not necessarily those of {site}.",
    "Powered by {brand} | Theme by {brand}",
    "Terms of service - Privacy notice - [Imprint|Accessibility]",
    "All content on this site is [provided|offered] as is, and {site} accepts no liability for mistakes in it.",
    "Made with care by the {site} team",
    "Registered in the county under number {code}. [Member|Part] of the {brand} group.",
    "Legal | Sitemap | Careers | [Feedback|Cookies]",
    "Please report [broken links|errors] to the webmaster.",
    "Back to top",
    "This site works best with a current browser and with scripts turned on.",
    "Follow us: Facebook, Twitter, [Instagram|YouTube]",
    "{site} takes part in a partner programme and may earn money when you buy through its links.",
    "© The {site} Trust, {year}. Registered charity no. {code}. Pictures may not be used elsewhere.",
)

CREDITS: Final = (
    "Photo: {person}",
    "Image: {person} / {brand}",
    "Picture by {person}, all rights reserved",
    "Click on the picture to enlarge it",
    "Caption: {person} (archive)",
    "Photograph courtesy of {brand}",
)

# Inside a line of main text, to be taken out of it. Brackets are literal here, no choices.
INLINE: Final = (
    " ({url})", " [link: {url}]", " (see {url})", " {url}", " <{url}>", " - {url}", " [{digit}]", " [edit]",
    " [citation needed]", " (click to enlarge)", " Read more »", " (opens in a new window)",
)  # fmt: skip

# Main text that looks like boilerplate: kept on every page where it occurs.
TRICKY_HEADINGS: Final = (
    "About the name", "Contact with the coast", "Home again", "News from the valley", "Help from outside",
    "Searching the archive", "Cookies and tea", "Terms of the lease", "Accounts and money", "Letters to the editor",
    "By hand", "Signs of change", "Shared work", "Comments of a neighbour", "Related customs", "More than a habit",
    "Three questions", "Next to nothing", "Privacy behind a wall", "Events of the year",
)  # fmt: skip

TRICKY_LINES: Final = (
    "Sources: the {section} book, two letters and a diary.",
    '"You should have come in spring," said {person}, and laughed.',
    "A note on spelling: older books have it with one letter more.",
    "The museum shop sells cookies in the same shape.",
    "{person} told the story to anyone who would listen.",
    "Not everybody agrees with this.",
    "Three things are certain:",
    "Why is that so?",
    "Please bring good shoes, for the ground is soft.",
    "Follow the wall to the left and ask again.",
)

SPAM: Final = (
    "Buy [cheap|discount|best price] {product} online today and save up to {n}% with free shipping!",
    "Our {product} are the number one choice of happy customers all over the world.",
    "Click here to get your {product} before this [amazing|exclusive] offer ends tonight.",
    "You will not believe how fast you can earn money at home with {product}.",
    "Best {product}, cheap {product}, {product} no prescription, {product} overnight delivery.",
    "Order now and receive a second {product} package absolutely free of charge.",
    "Doctors hate this [simple|secret] trick that makes {product} work in {n} days.",
    "Limited time only: win a brand new prize when you sign up for {product}.",
    "100% satisfaction guaranteed or your money back, visit {url} now.",
    "Are you tired of paying too much? {brand} has the answer, and it is {product}.",
    "Hundreds of [lonely|rich] people in your area are waiting for {product}.",
    "Your friends are already making {n}00 a day with {product}, so what are you waiting for?",
    "Call {code} now, operators are standing by to take your {product} order.",
    "The casino bonus for {product} is yours, spin {n} times without any deposit!",
    "{brand} {product} review: five stars, would buy again, very recommend.",
)

PRODUCTS: Final = (
    "pills", "watches", "handbags", "loans", "slimming tea", "hair oil", "casino chips", "replica shoes", "essays",
    "followers", "sunglasses", "insurance", "vitamins", "web hosting", "lottery tickets",
)  # fmt: skip

ERRORS: Final = (
    "404 - page not found", "The page you are looking for [does not exist|has moved].", "Oops! Something went wrong.",
    "Error [500|503]: the server could not [complete|answer] your request.",
    "Please check the address and try again.", "Access denied. You do not have permission to view this page.",
    "Sorry, we could not find what you were looking for.", "Your session has expired, please log in again.",
    "Please enable JavaScript to view this page.", "The database is being updated, come back in a few minutes.",
    "Return to the home page", "Reference number: {code}", "Try our search, or start again from the front page.",
    "This account has been suspended.", "If you think that this is a mistake, write to the webmaster.",
)  # fmt: skip

STUBS: Final = (
    "No posts yet.", "This article is a stub. You can help by adding to it.", "Content coming soon!",
    "There is nothing here at the moment, please come back later.", "0 results found.",
    "Be the first to write about this.", "[This page is|We are] under construction.", "The gallery is empty.",
    "You need to be a subscriber to read the rest of this article.", "Description: none",
    "Nothing to show in this category.", "To read on, please buy a day pass or log in with your reader number.",
)  # fmt: skip

FIRST_NAMES: Final = ("Anna", "Tom", "Mira", "Paul", "Lena", "Oscar", "Ruth", "Hugo", "Nora", "Emil", "Judith", "Sam")
LAST_NAMES: Final = ("Keller", "Marsh", "Olsen", "Price", "Quill", "Reed", "Sutter", "Thorne", "Vance", "Weber")
SITE_HEADS: Final = ("Valley", "River", "Northern", "Daily", "Old", "Green", "County", "Harbour", "Weekly", "Open")
SITE_TAILS: Final = (
    "Post",
    "Notes",
    "Review",
    "Almanac",
    "Herald",
    "Lantern",
    "Pages",
    "Companion",
    "Courier",
    "Mirror",
)
BRANDS: Final = ("Norvex", "Belmo", "Tritane", "Quazzo", "Ludd & Sons", "Happymart", "Fernico", "Ovalux", "Zentry")
SECTIONS: Final = ("town", "parish", "county", "guest", "school", "harbour")
SEASONS: Final = ("spring", "summer", "autumn", "winter")
MONTHS: Final = ("Jan", "Feb", "March", "April", "May", "June", "July", "Aug", "Sept", "Oct", "Nov", "Dec")
