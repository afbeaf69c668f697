"""Which of two topics a text is of, hashed to 2**18 columns, with one topic rarer than the other."""

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import balanced_accuracy_score

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
texts, labels = part(3000)
test_texts, test_labels = part(1000)
X, test_X = vectorizer.transform(texts), vectorizer.transform(test_texts)

scores = {}
for loss in ("hinge", "log_loss"):
    clf = SGDClassifier(loss=loss, class_weight="balanced", random_state=0).fit(X, labels)
    scores[loss] = clf.score(test_X, test_labels)
    scores[f"{loss}, balanced"] = balanced_accuracy_score(test_labels, clf.predict(test_X))
