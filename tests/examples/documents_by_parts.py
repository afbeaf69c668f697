"""Texts come in parts, hashed to 2**18 columns, and are learnt as they come: no part is kept."""

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier

topics = {"sea": "tide salt wave sail reef storm gull", "kitchen": "salt oven dough spice knife bread boil"}
common = ["the", "a", "of", "and", "in", "on", "to", "was", "it", "that", "with", "for", "as", "at"]
random = np.random.default_rng(0)


def part(count):
    """Return texts and their topics; most words say nothing, and a fifth of the telling ones are of the other topic."""
    labels = random.choice(list(topics), count, p=[0.3, 0.7])
    texts = []
    for label in labels:
        telling = [
            random.choice(topics[label if random.random() < 0.8 else random.choice(list(topics))].split())
            for _ in range(3)
        ]
        texts.append(" ".join([*random.choice(common, 12), *telling]))
    return texts, labels


vectorizer = HashingVectorizer(n_features=2**18, alternate_sign=False)
clf = SGDClassifier(max_iter=5, random_state=0)
test_texts, test_labels = part(1000)
curve = []
for _ in range(15):
    texts, labels = part(200)
    clf.partial_fit(vectorizer.transform(texts), labels, classes=sorted(topics))
    curve.append(clf.score(vectorizer.transform(test_texts), test_labels))

scores = {"end": np.mean(curve[-5:])}
